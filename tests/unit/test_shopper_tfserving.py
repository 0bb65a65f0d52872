"""shopper: what it asks of a model server, and what it makes of the answers."""

import asyncio
import io
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image

from caravan.decoding import Decoding
from caravan.errors import BadInput, CaravanError, Permanent, Unavailable
from shopper.images.budget import MemoryBudget
from shopper.images.limits import ImageLimits
from shopper.model.models import Models
from shopper.model.preparing import Preparing
from shopper.model.stubs import (
    DT_FLOAT,
    DT_STRING,
    GetModelMetadataResponse,
    GetModelStatusRequest,
    GetModelStatusResponse,
    ModelServiceServicer,
    ModelVersionStatus,
    PredictionServiceServicer,
    PredictResponse,
    SignatureDef,
    SignatureDefMap,
    TensorProto,
    add_ModelServiceServicer_to_server,
    add_PredictionServiceServicer_to_server,
)
from shopper.model.tensors import numbers, shape, texts
from shopper.model.tfserving import TfServing, open_channel
from shopper.ports import NotServed, Photo, Pixels, Silent
from support.files import as_file

CLASSES = ["tea-green", "tea-lemon", "other"]


def strings(values: list[str], shape: list[int]) -> Any:
    tensor = TensorProto(dtype=DT_STRING, string_val=[value.encode() for value in values])
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def floats(values: list[float], shape: list[int]) -> Any:
    tensor = TensorProto(dtype=DT_FLOAT, tensor_content=struct.pack(f"{len(values)}f", *values))
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    return tensor


def signature(inputs: dict[str, int | None], outputs: list[str], dtype: int = DT_STRING) -> Any:
    """Return a SignatureDef; an input's value is its number of dimensions, None for unknown."""
    definition = SignatureDef()
    for name, rank in inputs.items():
        definition.inputs[name].dtype = dtype
        if rank is None:
            definition.inputs[name].tensor_shape.unknown_rank = True
        for _ in range(rank or 0):
            definition.inputs[name].tensor_shape.dim.add().size = -1
    for name in outputs:
        definition.outputs[name].dtype = DT_STRING
    return definition


CLASSIFY = {"classify": signature({"images": 1}, ["labels", "scores", "probabilities", "classes"])}
DEFAULT = {"serving_default": signature({"image_b64": 1}, ["output_0"])}


class ModelServer(PredictionServiceServicer, ModelServiceServicer):  # type: ignore[misc] # no types published
    """A model server that is told what to say; it notes what it was asked."""

    def __init__(self) -> None:
        self.signatures: dict[str, Any] = CLASSIFY | DEFAULT
        self.version = 1
        self.before: int | None = None
        self.coming: int | None = None
        self.names: set[str] | None = None
        self.loading: set[str] = set()
        self.token = ""
        self.tensor_output: Any = None
        self.score = 0.9
        self.default_output: list[str] = ["tea-green", "0.838234"]
        self.errors: list[tuple[grpc.StatusCode, str]] = []
        self.delay = 0.0
        self.hangs: set[str] = set()
        self.status_error: grpc.StatusCode | None = None
        self.asked: list[Any] = []
        self.traceparent = ""
        self.metadata_calls = 0
        self.at_once = 0
        self.most_at_once = 0

    async def _let_in(self, request: Any, context: Any) -> None:
        shown = dict(context.invocation_metadata()).get("authorization", "")
        if self.token and shown != f"Bearer {self.token}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is needed")
        name = request.model_spec.name
        known = self.names is None or name in self.names
        if not known or (name in self.loading and not isinstance(request, GetModelStatusRequest)):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({name})")

    async def _chosen(self, request: Any, context: Any) -> int:
        wanted = request.model_spec.version.value or self.version
        if wanted not in {self.version, self.before}:
            name = request.model_spec.name
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({name}, {wanted})"
            )
        return int(wanted)

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        await self._let_in(request, context)
        self.traceparent = str(dict(context.invocation_metadata()).get("traceparent", ""))
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(600 if request.model_spec.name in self.hangs else self.delay)
        self.at_once -= 1
        if self.errors:
            await context.abort(*self.errors.pop(0))
        name = request.model_spec.signature_name
        if name not in self.signatures:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        expected = set(self.signatures[name].inputs)
        if set(request.inputs) != expected:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"Signature input alias: {min(request.inputs)} not found"
            )
        response = PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = await self._chosen(request, context)
        if name == "classify":
            response.outputs["labels"].CopyFrom(strings(["tea-green"], [1]))
            response.outputs["scores"].CopyFrom(floats([self.score], [1]))
            response.outputs["probabilities"].CopyFrom(floats([self.score, 0.06, 0.04], [1, 3]))
            response.outputs["classes"].CopyFrom(strings(CLASSES, [3]))
        elif self.tensor_output is not None:
            response.outputs["output_0"].CopyFrom(self.tensor_output)
        else:
            response.outputs["output_0"].CopyFrom(strings(self.default_output, [len(self.default_output)]))
        return response

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.metadata_calls += 1
        await self._let_in(request, context)
        if not self.signatures:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: Latest({request.model_spec.name})",
            )
        response = GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = await self._chosen(request, context)
        definitions = SignatureDefMap()
        for name, definition in self.signatures.items():
            definitions.signature_def[name].CopyFrom(definition)
        response.metadata["signature_def"].Pack(definitions)
        return response

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._let_in(request, context)
        if self.status_error is not None:
            await context.abort(self.status_error, "as told")
        response = GetModelStatusResponse()
        response.model_version_status.add(version=self.version, state=ModelVersionStatus.AVAILABLE)
        if self.before is not None:
            response.model_version_status.add(version=self.before, state=ModelVersionStatus.AVAILABLE)
        if self.coming is not None:
            response.model_version_status.add(version=self.coming, state=ModelVersionStatus.LOADING)
            response.model_version_status.add(version=self.coming + 1, state=ModelVersionStatus.END)
        return response


async def unnamed(model: str, version: int, count: int) -> tuple[str, ...]:
    return tuple(str(index) for index in range(count))


def asking(
    channel: grpc.aio.Channel,
    model: str = "tea_model_b64",
    *,
    version: int = 0,
    within: float = 5.0,
    token: str = "",
) -> TfServing:
    preparing = Preparing(ImageLimits(Decoding(2), MemoryBudget(10**8)))
    return TfServing(channel, model, preparing, unnamed, version=version, within=within, token=token)


@pytest.fixture
def model() -> ModelServer:
    return ModelServer()


@asynccontextmanager
async def served(model: ModelServer, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = grpc.aio.server()
    add_PredictionServiceServicer_to_server(model, server)
    add_ModelServiceServicer_to_server(model, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=0)


@pytest.fixture
async def classifier(model: ModelServer) -> AsyncIterator[TfServing]:
    async with served(model) as address, open_channel(address) as channel:
        yield asking(channel)


async def test_classify_is_preferred(model: ModelServer, classifier: TfServing) -> None:
    prediction = await classifier.classify(b"image")
    assert (prediction.item, prediction.model, prediction.version) == ("tea-green", "tea_model_b64", 1)
    assert prediction.score == pytest.approx(0.9)
    assert list(prediction.probabilities) == CLASSES
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
    request = model.asked[0]
    assert request.model_spec.signature_name == "classify"
    assert list(request.inputs["images"].string_val) == [b"image"]
    assert [dim.size for dim in request.inputs["images"].tensor_shape.dim] == [1]


async def test_a_model_made_elsewhere_is_asked_by_its_default_signature(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = DEFAULT
    prediction = await classifier.classify(b"image")
    assert (prediction.item, prediction.score) == ("tea-green", 0.838234)
    assert list(model.asked[0].inputs["image_b64"].string_val) == [b"image"]


async def test_a_default_signature_without_dimensions_gets_a_scalar(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = {"serving_default": signature({"bytes": 0}, ["output_0"])}
    await classifier.classify(b"image")
    assert not model.asked[0].inputs["bytes"].tensor_shape.dim


async def test_a_classify_signature_of_another_kind_is_passed_over(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = {"classify": signature({"inputs": 1}, ["classes", "scores"])} | DEFAULT
    await classifier.classify(b"image")
    assert model.asked[0].model_spec.signature_name == "serving_default"


async def test_metadata_is_read_once_for_many_images(model: ModelServer, classifier: TfServing) -> None:
    await asyncio.gather(*(classifier.classify(b"image") for _ in range(20)))
    assert model.metadata_calls == 1


async def test_concurrent_images_are_on_their_way_at_once(model: ModelServer, classifier: TfServing) -> None:
    model.delay = 0.2
    await asyncio.gather(*(classifier.classify(b"image") for _ in range(16)))
    assert model.most_at_once > 8


async def test_the_model_server_is_told_of_the_trace(
    model: ModelServer, classifier: TfServing, spans: InMemorySpanExporter
) -> None:
    await classifier.classify(b"image")
    (span,) = spans.get_finished_spans()
    assert (span.name, dict(span.attributes or {})) == ("predict", {"model": "tea_model_b64"})
    assert model.traceparent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


async def test_without_tracing_the_model_server_is_told_nothing(
    model: ModelServer, classifier: TfServing
) -> None:
    await classifier.classify(b"image")
    assert model.traceparent == ""


async def test_a_new_version_is_asked_for_its_signatures(model: ModelServer, classifier: TfServing) -> None:
    model.signatures = DEFAULT
    await classifier.classify(b"image")
    model.signatures, model.version = CLASSIFY | DEFAULT, 2
    assert (await classifier.classify(b"image")).version == 2
    await classifier.classify(b"image")
    assert [each.model_spec.signature_name for each in model.asked] == [
        "serving_default",
        "serving_default",
        "classify",
    ]


async def test_a_signature_that_is_gone_costs_no_answer(model: ModelServer, classifier: TfServing) -> None:
    await classifier.classify(b"image")
    model.signatures, model.version = DEFAULT, 2
    answers = await asyncio.gather(*(classifier.classify(b"image") for _ in range(8)))
    assert {answer.version for answer in answers} == {2}


async def test_an_input_that_has_another_name_now_costs_no_answer(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = DEFAULT
    await classifier.classify(b"image")
    model.signatures = {"serving_default": signature({"photo": None}, ["output_0"])}
    assert (await classifier.classify(b"image")).item == "tea-green"


async def test_a_model_that_reads_what_the_doors_take_is_given_what_was_sent(
    model: ModelServer, classifier: TfServing
) -> None:
    await classifier.classify(Photo(b"sent", b"jpeg"))
    assert list(model.asked[0].inputs["images"].string_val) == [b"sent"]


async def test_a_model_made_elsewhere_is_given_an_upright_jpeg(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = DEFAULT
    await classifier.classify(Photo(b"sent", b"jpeg"))
    assert list(model.asked[0].inputs["image_b64"].string_val) == [b"jpeg"]


async def test_what_a_model_server_cannot_read_is_made_a_jpeg(
    model: ModelServer, classifier: TfServing
) -> None:
    model.errors = [(grpc.StatusCode.INVALID_ARGUMENT, "Unknown image file format")]
    assert (await classifier.classify(Photo(b"sent", b"jpeg"))).item == "tea-green"
    assert [list(asked.inputs["images"].string_val) for asked in model.asked] == [[b"sent"], [b"jpeg"]]


async def test_unavailable_is_tried_again(model: ModelServer, classifier: TfServing) -> None:
    model.errors = [(grpc.StatusCode.UNAVAILABLE, "just a moment")]
    assert (await classifier.classify(b"image")).item == "tea-green"
    assert len(model.asked) == 2


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        ((grpc.StatusCode.INVALID_ARGUMENT, "Unknown image file format"), BadInput, "cannot read"),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full"), Unavailable, "too much"),
        ((grpc.StatusCode.NOT_FOUND, "Servable not found"), Unavailable, "upload training images"),
        ((grpc.StatusCode.INTERNAL, "broken"), Permanent, "INTERNAL"),
        ((grpc.StatusCode.FAILED_PRECONDITION, "batching"), Permanent, "FAILED_PRECONDITION"),
    ],
)
async def test_any_other_error_is_translated_and_not_tried_again(
    model: ModelServer,
    classifier: TfServing,
    error: tuple[grpc.StatusCode, str],
    kind: type[Exception],
    says: str,
) -> None:
    model.errors = [error]
    with pytest.raises(kind, match=says):
        await classifier.classify(b"image")
    assert len(model.asked) == 1


async def test_a_slow_answer_is_given_up_at_the_deadline_and_not_asked_again(model: ModelServer) -> None:
    model.delay = 5
    async with served(model) as address, open_channel(address) as channel:
        with pytest.raises(Unavailable, match="in time"):
            await asking(channel, within=0.2).classify(b"image")
    assert len(model.asked) == 1


async def test_a_model_that_hangs_is_asked_by_one_call_at_a_time_until_it_answers(model: ModelServer) -> None:
    async with served(model) as address, open_channel(address) as channel:
        slow = asking(channel, within=0.3)
        await slow.classify(b"image")
        model.hangs.add("tea_model_b64")
        with pytest.raises(Silent):
            await slow.classify(b"image")
        asked = len(model.asked)
        several = await asyncio.gather(*(slow.classify(b"image") for _ in range(20)), return_exceptions=True)
        assert {type(one) for one in several} == {Silent}
        assert len(model.asked) == asked + 1
        assert (await asking(channel, "another").classify(b"image")).item == "tea-green"
        model.hangs.clear()
        assert (await slow.classify(b"image")).item == "tea-green"
        assert len(await asyncio.gather(*(slow.classify(b"image") for _ in range(20)))) == 20


async def test_a_server_that_is_away_makes_no_model_silent(model: ModelServer) -> None:
    async with served(model) as address, open_channel(address) as channel:
        slow = asking(channel, within=0.3)
        await slow.classify(b"image")
        model.hangs.add("tea_model_b64")
        model.status_error = grpc.StatusCode.UNAVAILABLE
        several = await asyncio.gather(*(slow.classify(b"image") for _ in range(3)), return_exceptions=True)
        assert {type(one) for one in several} == {Unavailable}


async def test_of_a_model_that_somebody_named_it_is_known_too_that_it_hangs(model: ModelServer) -> None:
    async with served(model) as address, open_channel(address) as channel:
        models = Models(lambda name: asking(channel, name, within=0.3), "tea_model_b64")
        model.hangs.add("another")
        for _ in range(2):
            with pytest.raises(Silent):
                await models.classify(b"image", "another")
        assert model.metadata_calls == 1


async def test_no_model_yet_says_what_to_do_until_there_is_one(
    model: ModelServer, classifier: TfServing
) -> None:
    model.signatures = {}
    with pytest.raises(Unavailable, match="upload training images") as caught:
        await classifier.classify(b"image")
    assert caught.value.status == 503
    model.signatures = CLASSIFY
    assert (await classifier.classify(b"image")).item == "tea-green"


async def test_a_server_that_is_away_is_unavailable_and_found_again(model: ModelServer) -> None:
    async with served(model) as address:
        pass
    async with open_channel(address) as channel:
        classifier = asking(channel)
        with pytest.raises(Unavailable, match="does not answer"):
            await classifier.classify(b"image")
        async with served(model, address):
            assert (await classifier.classify(b"image")).item == "tea-green"


@pytest.mark.parametrize(
    "signatures",
    [
        {"other": signature({"images": 1}, ["labels"])},
        {"serving_default": signature({"pixels": 4}, ["output_0"], DT_FLOAT)},
        {"serving_default": signature({"a": 1, "b": 1}, ["output_0"])},
    ],
)
async def test_a_model_that_takes_no_image_is_refused(
    model: ModelServer, classifier: TfServing, signatures: dict[str, Any]
) -> None:
    model.signatures = signatures
    with pytest.raises(Permanent, match="no signature that takes an image"):
        await classifier.classify(b"image")


@pytest.mark.parametrize("output", [[], ["tea-green"], ["tea-green", "very"], ["a", "0.5", "b"]])
async def test_an_answer_in_another_form_is_refused(
    model: ModelServer, classifier: TfServing, output: list[str]
) -> None:
    model.signatures, model.default_output = DEFAULT, output
    with pytest.raises(Permanent, match="form that is not known"):
        await classifier.classify(b"image")


async def test_a_score_that_is_not_a_number_counts_as_none(model: ModelServer, classifier: TfServing) -> None:
    model.score = float("nan")
    assert (await classifier.classify(b"image")).score == 0.0


async def test_ping_asks_whether_the_server_answers_with_or_without_a_model(
    model: ModelServer, classifier: TfServing
) -> None:
    await classifier.ping()
    model.status_error = grpc.StatusCode.NOT_FOUND
    await classifier.ping()
    model.status_error = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(Unavailable):
        await classifier.ping()


@pytest.mark.parametrize(
    ("read", "tensor"),
    [
        (texts, floats([1.0], [1])),
        (numbers, strings(["a"], [1])),
        (numbers, floats([1.0, 2.0], [3])),
        (texts, strings(["a", "b"], [1])),
        (texts, strings([], [2])),
    ],
)
def test_a_tensor_of_another_type_or_size_is_refused(read: Callable[[Any], Any], tensor: Any) -> None:
    with pytest.raises(Permanent):
        read(tensor)


def test_values_that_were_sent_once_fill_their_shape() -> None:
    tensor = TensorProto(dtype=DT_FLOAT, float_val=[1.0, 0.5])
    tensor.tensor_shape.dim.add().size = 4
    assert numbers(tensor) == [1.0, 0.5, 0.5, 0.5]


# --- tensors ------------------------------------------------------------------------------------------

DIGITS = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28, 1).astype(np.uint8)


def convnet(*shape: int, dtype: int = DT_FLOAT) -> dict[str, Any]:
    """Return the signature of a plain Keras model."""
    definition = SignatureDef()
    definition.inputs["conv2d_input"].dtype = dtype
    for size in shape:
        definition.inputs["conv2d_input"].tensor_shape.dim.add().size = size
    definition.outputs["output_0"].dtype = DT_FLOAT
    return {"serving_default": definition}


@pytest.fixture
def keras(model: ModelServer) -> ModelServer:
    model.signatures = convnet(-1, 28, 28, 1)
    model.tensor_output = floats([0.1, 0.7, 0.2], [1, 3])
    return model


async def test_a_plain_convnet_is_asked_by_its_signature(keras: ModelServer, classifier: TfServing) -> None:
    prediction = await classifier.classify(Pixels(DIGITS))
    sent = keras.asked[0].inputs["conv2d_input"]
    assert numbers(sent) == (DIGITS.astype(np.float32) / 255).reshape(-1).tolist()
    assert (prediction.item, prediction.classes) == ("1", ("0", "1", "2"))
    assert prediction.score == pytest.approx(0.7)
    assert list(prediction.probabilities.values()) == pytest.approx([0.1, 0.7, 0.2])
    assert prediction.prep_seconds > 0
    assert prediction.predict_seconds > 0


async def test_a_convnet_takes_a_photo_too(keras: ModelServer, classifier: TfServing) -> None:
    keras.signatures = convnet(-1, 3, 32, 32)
    await classifier.classify(encoded(DIGITS))
    assert shape(keras.asked[0].inputs["conv2d_input"]) == [1, 3, 32, 32]


async def test_a_damaged_photo_is_refused_before_the_model_is_asked(
    keras: ModelServer, classifier: TfServing
) -> None:
    with pytest.raises(BadInput, match="damaged"):
        await classifier.classify(encoded(DIGITS)[:-50])
    assert keras.asked == []


async def test_a_model_of_strings_gets_the_pixels_as_an_image(
    model: ModelServer, classifier: TfServing
) -> None:
    await classifier.classify(Pixels(DIGITS))
    (sent,) = model.asked[0].inputs["images"].string_val
    assert Image.open(io.BytesIO(sent)).size == (28, 28)


async def test_a_model_that_changes_its_form_costs_no_answer(
    keras: ModelServer, classifier: TfServing
) -> None:
    await classifier.classify(Pixels(DIGITS))
    keras.signatures, keras.version = CLASSIFY | DEFAULT, 2
    assert (await classifier.classify(Pixels(DIGITS))).item == "tea-green"


def encoded(values: Any) -> bytes:
    return as_file(Image.fromarray(values[:, :, 0]))


# --- several models, and a token ----------------------------------------------------------------------


@pytest.fixture
async def models(model: ModelServer) -> AsyncIterator[Models]:
    model.names = {"tea_model_b64", "fashion_classifier"}
    async with served(model) as address, open_channel(address) as channel:
        yield Models(partial(asking, channel), "tea_model_b64")


async def test_the_model_that_is_asked_for_answers(model: ModelServer, models: Models) -> None:
    answers = [await models.classify(b"image", name) for name in ("", "fashion_classifier", "tea_model_b64")]
    asked = [request.model_spec.name for request in model.asked]
    assert asked == ["tea_model_b64", "fashion_classifier", "tea_model_b64"]
    assert [answer.model for answer in answers] == asked


@pytest.mark.parametrize("name", ["coffee", "..", "a/b", "x" * 200, "tea model"])
async def test_an_unknown_model_is_the_senders_fault(models: Models, name: str) -> None:
    with pytest.raises(BadInput, match="not served here") as caught:
        await models.classify(b"image", name)
    assert (caught.value.status, caught.value.reason) == (404, "unknown-model")


async def test_a_default_model_that_is_not_there_yet_is_nobodys_fault(
    model: ModelServer, models: Models
) -> None:
    model.names = set()
    for name in ("", "tea_model_b64"):
        with pytest.raises(Unavailable, match="upload training images"):
            await models.classify(b"image", name)


async def test_a_model_that_comes_later_and_goes_is_noticed(model: ModelServer, models: Models) -> None:
    model.names = {"coffee"}
    assert (await models.classify(b"image", "coffee")).model == "coffee"
    model.names = set()
    with pytest.raises(BadInput, match="not served"):
        await models.classify(b"image", "coffee")


async def test_a_model_that_is_being_loaded_is_not_called_unknown(model: ModelServer, models: Models) -> None:
    model.loading = {"fashion_classifier"}
    with pytest.raises(Unavailable, match="no version ready yet"):
        await models.classify(b"image", "fashion_classifier")
    model.loading = set()
    assert (await models.classify(b"image", "fashion_classifier")).item == "tea-green"


async def test_a_models_signatures_are_asked_for_once(model: ModelServer, models: Models) -> None:
    for _ in range(3):
        await models.classify(b"image", "fashion_classifier")
    assert model.metadata_calls == 1


async def test_a_token_is_shown_with_every_call(model: ModelServer) -> None:
    model.token = "correct-horse"
    async with served(model) as address, open_channel(address) as channel:
        knowing = asking(channel, token="correct-horse")
        await knowing.ping()
        assert (await knowing.classify(b"image")).item == "tea-green"
        unknowing = asking(channel)
        with pytest.raises(CaravanError, match="UNAUTHENTICATED"):
            await unknowing.classify(b"image")
        with pytest.raises(CaravanError, match="UNAUTHENTICATED"):
            await unknowing.ping()


async def test_one_version_is_asked_by_its_number_and_the_newest_by_none(model: ModelServer) -> None:
    model.version, model.before, model.coming = 8, 7, 9
    async with served(model) as address, open_channel(address) as channel:
        newest, before = asking(channel), asking(channel, version=7)
        assert [(await each.classify(b"photo")).version for each in (newest, before, newest)] == [8, 7, 8]
        assert [request.model_spec.version.value for request in model.asked] == [0, 7, 0]
        assert await newest.versions() == {8: True, 7: True, 9: False}
        model.before = None
        with pytest.raises(NotServed):
            await before.classify(b"photo")
        model.names = set()
        with pytest.raises(NotServed):
            await newest.versions()
