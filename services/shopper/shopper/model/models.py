"""The models of the model server: each is asked in its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from caravan.contracts import is_model_name
from caravan.errors import BadInput, Unavailable
from caravan.names import CLASS_RULE, as_class, is_class
from shopper import metrics
from shopper.model.inputs import Scale
from shopper.ports import NotServed, Photo, Picture, Prediction, Silent

MOST = 64
"""Most models remembered. A forgotten model's signatures are asked for again."""
MAX_SIDE = 4096


class Served(Protocol):
    """One model at the model server."""

    async def classify(self, image: Picture | Photo) -> Prediction:
        """Return the model's opinion of an image; NotServed where the server has no such model."""
        ...

    async def is_known(self) -> bool:
        """Tell whether the server knows the model, ready or not."""
        ...

    async def ping(self) -> None:
        """Check that the server answers."""
        ...


class ModelOptions(BaseModel):
    """What a model does not say of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: Scale | None = None
    """Values of black and white in its tensor; `TENSOR_SCALE` if None."""
    size: tuple[int, int] | None = None
    """Height and width of its input, if the signature leaves them open."""
    classes: tuple[str, ...] = ()
    """Its class names in the order of its output, if neither model nor manifest has them."""
    score_accuracy: float | None = Field(default=None, ge=0, le=1)
    """Least score of a known answer; `SCORE_ACCURACY` if None."""

    @field_validator("size")
    @classmethod
    def _of_an_image(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
            message = f"height and width are 1 to {MAX_SIDE}"
            raise ValueError(message)
        return size

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        classes = tuple(map(as_class, classes))
        if len(set(classes)) != len(classes) or not all(map(is_class, classes)):
            raise ValueError(f"each class has a name of its own, and {CLASS_RULE}")
        return classes


NO_OPTIONS = ModelOptions()
"""Options of a model for which nothing is set."""


def parse_options(text: object) -> Mapping[str, ModelOptions]:
    """Read the setting `MODELS`: a JSON object of options by model.

    Raises:
        ValueError: naming every fault.

    """
    try:
        raw = text if not isinstance(text, str) else (text.strip() or "{}")
        adapter = TypeAdapter(dict[str, ModelOptions])
        options = adapter.validate_json(raw) if isinstance(raw, str) else adapter.validate_python(raw)
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_input=False)
        where = (".".join(map(str, fault["loc"])) or "JSON" for fault in faults)
        message = "; ".join(f"{place}: {fault['msg']}" for place, fault in zip(where, faults, strict=True))
        raise ValueError(message) from exc
    names = [name for name in options if not is_model_name(name)]
    if names:
        message = f"not the name of a model: {', '.join(map(repr, names))}"
        raise ValueError(message)
    return options


class Models:
    """Classifies with the model that is asked for.

    Only models that answered, or hang, are remembered, so names that senders make up cost a question and no
    memory.

    Args:
        serve: makes what asks a model, by its name.
        default: the model of those who name none.

    """

    def __init__(self, serve: Callable[[str], Served], default: str) -> None:
        self._serve = serve
        self._default_name = default
        self._default = serve(default)
        self._others: dict[str, Served] = {}

    async def classify(self, image: Picture | Photo, model: str = "") -> Prediction:
        """Return a model's opinion of an image; of the default model where none is named.

        Raises:
            BadInput: 404 if the model server has no such model, 422 if the model cannot read the image.
            Unavailable: if the model has no version ready yet, the server is away or too slow.
            Refused: if the model cannot be asked about images, or answers in a form that is not known.

        """
        prediction = await self._classify(image, model)
        metrics.MODEL_VERSION.labels(prediction.model).set(prediction.version)
        return prediction

    async def _classify(self, image: Picture | Photo, model: str) -> Prediction:
        if model in {"", self._default_name}:
            return await self._default.classify(image)
        served = self._others.pop(model, None)
        if served is None:
            if not is_model_name(model):
                raise _unknown(model)
            served = self._serve(model)
        else:
            self._others[model] = served  # the latest asked is the last to be forgotten
        try:
            prediction = await served.classify(image)
        except NotServed as exc:
            self._others.pop(model, None)
            if await served.is_known():
                raise Unavailable(f"model {model} has no version ready yet: try again") from exc
            raise _unknown(model) from exc
        except Silent:
            self._remember(model, served)
            raise
        self._remember(model, served)
        return prediction

    async def ping(self) -> None:
        """Check that the model server answers, though it may have no version of the default model yet."""
        await self._default.ping()

    def _remember(self, model: str, served: Served) -> None:
        if self._others.setdefault(model, served) is served and len(self._others) > MOST:
            self._others.pop(next(iter(self._others)))


def _unknown(model: str) -> BadInput:
    return BadInput(f"model {model[:130]!r} is not served here", 404, reason="unknown-model")
