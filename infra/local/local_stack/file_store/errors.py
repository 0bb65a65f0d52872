"""What is answered instead: S3's own codes."""

from __future__ import annotations

CODES = {
    "AccessDenied": (403, "the request is not signed with Signature Version 4 in its Authorization header"),
    "BadDigest": (400, "the content is not the one that its checksum was made of"),
    "BucketAlreadyOwnedByYou": (409, "the bucket is there already"),
    "BucketNotEmpty": (409, "the bucket still holds objects"),
    "EntityTooLarge": (400, "an object may have 5 TiB, and a document 2 MiB"),
    "ExistingObjectIsDirectory": (409, "there are objects below this key; one of its own has no place then"),
    "IncompleteBody": (400, "the body ended early, or is not framed as it says"),
    "InsufficientStorage": (507, "there is no room left"),
    "InternalError": (500, "the store could not read or write its files"),
    "InvalidAccessKeyId": (403, "there is no such access key"),
    "InvalidArgument": (400, "the key, or an argument, cannot be understood"),
    "InvalidBucketName": (400, "a bucket's name has 3 to 63 of the characters a-z, 0-9, '.' and '-'"),
    "InvalidPart": (400, "a part is not there, or is another one"),
    "InvalidPartOrder": (400, "the parts are not in ascending order"),
    "InvalidRange": (416, "the object has no such bytes"),
    "KeyTooLongError": (400, "a key has at most 1,024 bytes, and 250 between two slashes"),
    "MalformedXML": (400, "the document is not the one that is expected here"),
    "MetadataTooLarge": (400, "the metadata of an object has at most 2 kB"),
    "MethodNotAllowed": (405, "nothing here answers that method"),
    "NoSuchBucket": (404, "there is no such bucket"),
    "NoSuchKey": (404, "there is no such object"),
    "NoSuchUpload": (404, "there is no such upload, or it is completed"),
    "NotImplemented": (501, "this store does not do that"),
    "ObjectParentIsFile": (409, "a folder of this key is an object itself"),
    "PreconditionFailed": (412, "the object is not in the state that is asked for"),
    "RequestTimeTooSkewed": (403, "the request's time is more than 15 minutes from the server's"),
    "SignatureDoesNotMatch": (403, "the signature is another one: check the secret key"),
}


class S3Error(Exception):
    """An answer of S3 that is none of success: its code, the status that goes with it, and words."""

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        self.status, usual = CODES[code]
        self.message = message or usual
        super().__init__(f"{code}: {self.message}")


class Disconnected(Exception):
    """The client went before its body was whole."""
