/** GetCallerIdentity: whoever can sign may ask who he is; no policy permits or denies it. */
import type { Operation } from '../../pipeline.ts'
import type { XmlContent } from './xml.ts'

const timeoutMs = 5_000

export function getCallerIdentity(): Operation<null, null, XmlContent> {
  return {
    name: 'GetCallerIdentity',
    readOnly: true,
    timeoutMs,
    parse: () => null,
    prepare: async () => ({ resources: null, demands: [] }),
    perform: async (_input, _resources, { principal }) => ({
      Arn: principal.arn,
      UserId: principal.principalId,
      Account: principal.account,
    }),
    record: () => ({ requestParameters: null, responseElements: null, resources: [] }),
  }
}
