/**
 * The key policy of a key that was created without one (AWS KMS Developer Guide, "Default key policy"), in the very layout in which
 * GetKeyPolicy returns it: clients compare the text.
 */

export function defaultKeyPolicy(account: string, partition: string): string {
  return `{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {
      "AWS" : "arn:${partition}:iam::${account}:root"
    },
    "Action" : "kms:*",
    "Resource" : "*"
  } ]
}`
}
