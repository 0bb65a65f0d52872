"""shopper: base64 as clients send it."""

import base64

import pytest

from caravan.errors import BadInput
from shopper.doors.encoding import decode_image, json_limit

BYTES = bytes(range(256)) + b"?>"
STANDARD = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        base64.urlsafe_b64encode(BYTES).decode(),
        STANDARD.rstrip("="),
        base64.encodebytes(BYTES).decode(),
        STANDARD.replace("\n", "") + "\r\n",
        f"data:image/jpeg;base64,{STANDARD}",
        f"data:image/png;charset=x;base64,{STANDARD}",
        f"DATA:image/png;BASE64,{STANDARD}",
        f"data:;base64,{STANDARD}",
    ],
)
def test_every_form_of_base64_is_decoded(text: str) -> None:
    assert decode_image(text) == BYTES


@pytest.mark.parametrize(
    "text", ["?", "a", "äöü", "data:image/png,raw", "data:image/png;base64", STANDARD + "$"]
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        decode_image(text)
    assert caught.value.status == 400


def test_a_message_may_be_as_large_as_its_image_in_base64() -> None:
    image = bytes(1000)
    assert len(base64.b64encode(image)) < json_limit(len(image))
