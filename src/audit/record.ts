/**
 * Encodes finished calls and events of our own as CloudTrail records (AWS documentation, "CloudTrail record contents").
 *
 * Pure, and on the path of every call: what repeats (a caller's identity, the current second) is encoded once, and the rest is
 * concatenated. Every variable text goes through JSON.stringify, so no input can break out of its place.
 */
import { randomUUID } from 'node:crypto'
import type { Door, Principal } from '../call.ts'
import type { AuditedCall, AuditedEvent } from './audit.ts'

const eventVersion = '1.11'

/** CloudTrail's limit for one record; larger parameters are left out, and the record says so. */
const maxRecordChars = 256 * 1024

const eventSources: Readonly<Record<Door, string>> = {
  kms: 'kms.amazonaws.com',
  sts: 'sts.amazonaws.com',
  xks: 'hsmgate.xks',
  offload: 'hsmgate.offload',
  operator: 'hsmgate.operator',
}

/** A record ready to be chained; `event` is JSON without line breaks. */
export interface EncodedRecord {
  readonly eventId: string
  readonly event: string
}

/**
 * One record; two where the call touches a resource of another account, because each account gets its own with the same
 * `sharedEventID`.
 */
export function encodeCall(call: AuditedCall): readonly [EncodedRecord, ...EncodedRecord[]] {
  const { account } = call.principal
  const foreign = call.resources.find((resource) => resource.account !== account)?.account
  if (foreign === undefined) return [encodeFor(call, account, undefined)]
  const sharedEventId = randomUUID()
  return [encodeFor(call, account, sharedEventId), encodeFor(call, foreign, sharedEventId)]
}

function encodeFor(call: AuditedCall, recipient: string, sharedEventId: string | undefined): EncodedRecord {
  const eventId = randomUUID()
  const { error, source, decidedBy, additionalEventData } = call
  const requestParameters = encodeJson(call.requestParameters)
  const responseElements = encodeJson(call.responseElements)
  const fits = requestParameters.length + responseElements.length <= maxRecordChars
  const additional = decidedBy === undefined ? additionalEventData : { ...additionalEventData, decidedBy }
  const event =
    `{"eventVersion":"${eventVersion}","userIdentity":${encodeIdentity(call.principal)}` +
    `,"eventTime":"${formatSecond(call.receivedAt)}","eventSource":"${eventSources[call.door]}"` +
    `,"eventName":${quote(call.operation)},"awsRegion":${quote(call.region)}` +
    `,"sourceIPAddress":${quote(source.ip)},"userAgent":${quote(source.userAgent)}` +
    (error === undefined ? '' : `,"errorCode":${quote(error.code)},"errorMessage":${JSON.stringify(error.text)}`) +
    `,"requestParameters":${fits ? requestParameters : encodeOmitted(requestParameters)}` +
    `,"responseElements":${fits ? responseElements : encodeOmitted(responseElements)}` +
    (additional === undefined ? '' : `,"additionalEventData":${encodeJson(additional)}`) +
    `,"requestID":${JSON.stringify(call.requestId)},"eventID":"${eventId}","readOnly":${call.readOnly}` +
    `,"resources":${encodeResources(call.resources)}` +
    `,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":${quote(recipient)}` +
    (sharedEventId === undefined ? '' : `,"sharedEventID":"${sharedEventId}"`) +
    `,"eventCategory":"Management"` +
    (source.tls === undefined ? '' : `,"tlsDetails":${encodeTls(source.tls)}`) +
    '}'
  return { eventId, event }
}

/** Events that AWS KMS itself records as service events; all others are the gateway's own. */
const kmsServiceEvents: ReadonlySet<string> = new Set([
  'CreateKey',
  'DeleteExpiredKeyMaterial',
  'DeleteKey',
  'RotateKey',
  'SynchronizeMultiRegionKey',
  'UpdatePrimaryRegion',
])

/** A service event: something that no caller asked for. `at` in epoch milliseconds. */
export function encodeEvent(event: AuditedEvent, at: number, ownSource = 'hsmgate.gateway'): EncodedRecord {
  const eventId = randomUUID()
  const account = JSON.stringify(event.account)
  const eventSource = kmsServiceEvents.has(event.name) ? eventSources.kms : ownSource
  return {
    eventId,
    event:
      `{"eventVersion":"${eventVersion}","userIdentity":{"accountId":${account},"invokedBy":"AWS Internal"}` +
      `,"eventTime":"${formatSecond(at)}","eventSource":"${eventSource}","eventName":${JSON.stringify(event.name)}` +
      `,"awsRegion":${JSON.stringify(event.region)},"sourceIPAddress":"AWS Internal","userAgent":"AWS Internal"` +
      `,"requestParameters":null,"responseElements":null,"eventID":"${eventId}","readOnly":false` +
      `,"resources":${encodeResources(event.resources ?? [])},"eventType":"AwsServiceEvent","managementEvent":true` +
      `,"recipientAccountId":${account},"serviceEventDetails":${encodeJson(event.details)}` +
      `,"eventCategory":"Management"}`,
  }
}

/** Principals are frozen and reused from call to call. */
const identities = new WeakMap<Principal, string>()

function encodeIdentity(principal: Principal): string {
  let identity = identities.get(principal)
  if (identity === undefined) {
    identity = JSON.stringify(describeIdentity(principal))
    identities.set(principal, identity)
  }
  return identity
}

const identityTypes: Readonly<Record<Principal['type'], string>> = {
  user: 'IAMUser',
  'role-session': 'AssumedRole',
  root: 'Root',
  operator: 'Operator',
  'key-store': 'ExternalKeyStore',
}

function describeIdentity(principal: Principal): Record<string, unknown> {
  const { type, principalId, arn, account, accessKeyId, userName, roleArn, issuedAt } = principal
  return {
    type: identityTypes[type],
    principalId,
    arn,
    accountId: account,
    accessKeyId,
    userName,
    sessionContext:
      roleArn === undefined
        ? undefined
        : {
            sessionIssuer: {
              type: 'Role',
              principalId: principalId.split(':')[0],
              arn: roleArn,
              accountId: account,
              userName: roleArn.slice(roleArn.lastIndexOf('/') + 1),
            },
            attributes: {
              creationDate: issuedAt === undefined ? undefined : formatSecond(issuedAt * 1000),
              mfaAuthenticated: 'false',
            },
          },
  }
}

function encodeResources(resources: AuditedCall['resources']): string {
  let text = '['
  for (const { account, type, arn } of resources) {
    if (text.length > 1) text += ','
    text += `{"accountId":${quote(account)},"type":${quote(type)},"ARN":${quote(arn)}}`
  }
  return `${text}]`
}

function encodeTls(tls: NonNullable<AuditedCall['source']['tls']>): string {
  const { version, cipherSuite, host } = tls
  return JSON.stringify({ tlsVersion: version, cipherSuite, clientProvidedHostHeader: host })
}

function encodeJson(value: Readonly<Record<string, unknown>> | null): string {
  return value === null ? 'null' : JSON.stringify(value)
}

function encodeOmitted(original: string): string {
  if (original === 'null') return original
  return `{"omitted":true,"originalSize":${original.length},"reason":"the record would be larger than 256 KB"}`
}

const quoted = new Map<string, string>()
const maxQuoted = 4096

/** JSON of a text that comes back from call to call: a lookup costs a tenth of an encoding. */
function quote(text: string): string {
  let json = quoted.get(text)
  if (json === undefined) {
    json = JSON.stringify(text)
    if (quoted.size >= maxQuoted) quoted.clear()
    if (text.length <= 512) quoted.set(text, json)
  }
  return json
}

let lastSecond = Number.NaN
let lastText = ''

/** `2022-03-07T22:36:44Z`. */
export function formatSecond(epochMs: number): string {
  const second = Math.floor(epochMs / 1000)
  if (second !== lastSecond) {
    lastSecond = second
    lastText = `${new Date(second * 1000).toISOString().slice(0, 19)}Z`
  }
  return lastText
}
