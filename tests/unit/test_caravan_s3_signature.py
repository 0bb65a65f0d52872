"""Requests to S3 are signed as AWS's documents and botocore, the reference, sign them."""

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import SecretStr

from caravan.s3_signature import DATE, signed
from caravan.settings import S3Address

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ADDRESS = S3Address("https://s3.example.org", SecretStr(KEY), SecretStr(SECRET), "us-east-1", None)


def test_the_example_of_the_documents_has_the_signature_that_they_give() -> None:
    url = "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J"
    found = signed(ADDRESS, "GET", url, now=datetime(2013, 5, 24, tzinfo=UTC))["Authorization"]
    assert found.endswith("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9000/photos",
        "http://store:80/photos?location",
        "https://store:443/photos?list-type=2&prefix=images%2Ftea%20green%2F&start-after=a%2Bb%26c",
        "http://[::1]:9000/photos?continuation-token=t%261%3D&delimiter=%2F&encoding-type=url",
        "https://Store.example.org/photos?prefix=%C3%A9%F0%9F%8D%B5",
    ],
)
def test_a_request_is_signed_as_botocore_signs_it(method: str, url: str) -> None:
    theirs = AWSRequest(method, url)
    S3SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1").add_auth(theirs)
    now = datetime.strptime(theirs.headers["X-Amz-Date"], DATE).replace(tzinfo=UTC)
    assert signed(ADDRESS, method, url, now=now) == dict(theirs.headers)
