import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { formatAwsCommand } from '../../../src/cli/aws-command.ts'
import { parseConfig } from '../../../src/config/load.ts'

const configWith = (kms: object) =>
  parseConfig(
    JSON.stringify({
      development: true,
      listen: { kms },
      tokens: { a: { module: 'm.so', label: 'l', pinFile: 'pin' } },
    }),
    "/home/it's me/.hsmgate/config.json",
  )
const parts = {
  endpoint: 'http://127.0.0.1:8600',
  credentialsFile: '/srv/x/.hsmgate/credentials',
  region: 'us-east-1',
  config: configWith({}),
}

describe('the AWS command', () => {
  it('is short where nothing in the environment stands against the credentials file', () => {
    expect(formatAwsCommand(parts, {})).toBe(
      "AWS_SHARED_CREDENTIALS_FILE=/srv/x/.hsmgate/credentials aws --endpoint-url http://127.0.0.1:8600 kms create-key --description 'my first key'",
    )
  })

  it('names profile and Region where the environment names others', () => {
    const environment = { AWS_ACCESS_KEY_ID: 'AKIAOTHER', AWS_REGION: 'eu-central-1' }
    expect(formatAwsCommand(parts, environment)).toContain(
      ' --endpoint-url http://127.0.0.1:8600 --profile default --region us-east-1 kms ',
    )
  })

  it('survives a shell whatever the folder is called', () => {
    const credentialsFile = "/home/it's me/$(id)/credentials"
    const line = formatAwsCommand({ ...parts, credentialsFile }, {}).replace(
      ' aws ',
      ' printenv AWS_SHARED_CREDENTIALS_FILE; : ',
    )
    expect(execFileSync('/bin/sh', ['-c', line], { encoding: 'utf8' })).toBe(`${credentialsFile}\n`)
  })

  it('names an address that can be connected to', () => {
    const endpoint = 'http://[::]:8600'
    expect(formatAwsCommand({ ...parts, endpoint }, {})).toContain(' --endpoint-url http://localhost:8600 ')
  })

  it('brings the development CA where the door shows its certificate', () => {
    const config = configWith({ tls: { certificateFile: 'tls/server.pem', keyFile: 'tls/server.key' } })
    const line = formatAwsCommand({ ...parts, endpoint: 'https://127.0.0.1:8600', config }, {})
    expect(line).toContain(
      " AWS_CA_BUNDLE='/home/it'\\''s me/.hsmgate/tls/ca.pem' aws --endpoint-url https://localhost:8600 ",
    )
  })
})
