"""KMS calls of boto3 for tests: a JSON list of [operation, parameters] on standard input, a JSON list of answers on standard output.

Operations have boto3's names (describe_key); "paginate:list_keys" walks all pages. Bytes are {"base64": "..."} both ways, times epoch seconds.
The endpoint is the one argument, credentials and Region come from the environment. Requests are sent as they are given: boto3 checks nothing.
"""
import base64
import datetime
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

attempts = 0


def count(**_):
    global attempts
    attempts += 1


def from_json(value):
    if isinstance(value, dict):
        if list(value) == ["base64"]:
            return base64.b64decode(value["base64"])
        return {name: from_json(each) for name, each in value.items()}
    return [from_json(each) for each in value] if isinstance(value, list) else value


def to_json(value):
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return {"epochSeconds": value.timestamp()}
    raise TypeError(type(value).__name__)


def call(kms, operation, parameters):
    global attempts
    attempts = 0
    try:
        if operation.startswith("paginate:"):
            paging = {"PageSize": parameters.pop("PageSize")}
            pages = kms.get_paginator(operation[9:]).paginate(PaginationConfig=paging, **parameters)
            return {"pages": [dict(page, ResponseMetadata=None) for page in pages]}
        output = getattr(kms, operation)(**parameters)
        status = output.pop("ResponseMetadata")["HTTPStatusCode"]
        return {"output": output, "status": status, "attempts": attempts}
    except ClientError as error:
        answer = error.response
        return {
            "code": answer["Error"]["Code"],
            "message": answer["Error"].get("Message", ""),
            "status": answer["ResponseMetadata"]["HTTPStatusCode"],
            "attempts": attempts,
        }


kms = boto3.client(
    "kms",
    endpoint_url=sys.argv[1],
    config=Config(parameter_validation=False, retries={"mode": "standard", "total_max_attempts": 3}),
)
kms.meta.events.register("before-send.kms", count)
json.dump([call(kms, operation, from_json(parameters)) for operation, parameters in json.load(sys.stdin)], sys.stdout, default=to_json)
