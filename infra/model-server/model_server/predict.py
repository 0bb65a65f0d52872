"""The core: what each call of the API means, without transport.

Requests and responses are TensorFlow Serving's messages; every refusal is a ServingError in its words.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_server.configs import model_configs
from model_server.errors import Code, ServingError, failed_precondition, invalid, not_found
from model_server.manager import Manager, State, Version
from model_server.scheduler import Scheduler
from model_server.servable import DEFAULT_SIGNATURE, Arrays, Servable, Signature, check_types
from model_server.stubs import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    meta_graph_pb2,
    model_pb2,
    model_server_config_pb2,
    predict_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from model_server.tensors import dtype_words, to_proto

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
SIGNATURE_DEF = "signature_def"

Shape = tuple[int, ...]


class Core:
    """Answers requests out of the models the manager keeps."""

    def __init__(self, manager: Manager, scheduler: Scheduler, is_told: Callable[[], bool]) -> None:
        self._manager = manager
        self._scheduler = scheduler
        self._is_told = is_told

    # --- inference --------------------------------------------------------------------------------

    async def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Run a signature on named tensors; answers all its outputs, or those of `output_filter`."""
        servable = self._servable(request)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = servable.signatures.get(name)
        if signature is None:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        inputs = _checked_inputs(signature, request)
        outputs = _checked_outputs(signature, request.output_filter)
        spec = _spec(servable, name)

        def finish(arrays: Arrays) -> predict_pb2.PredictResponse:
            response = predict_pb2.PredictResponse(model_spec=spec)
            for alias in outputs:
                dtype = signature.definition.outputs[alias].dtype
                response.outputs[alias].CopyFrom(to_proto(arrays[alias], dtype))
            return response

        answer: predict_pb2.PredictResponse = await self._scheduler.run(
            servable,
            signature,
            inputs,
            rows=_rows(inputs.values()),
            size=request.ByteSize(),
            finish=finish,
        )
        return answer

    async def classify(
        self, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """Run a classification signature on tf.Examples."""
        servable = self._servable(request)
        signature = _examples_signature(servable, request.model_spec)
        _check_classification(signature.definition)
        response = classification_pb2.ClassificationResponse(
            model_spec=_spec(servable, request.model_spec.signature_name)
        )
        response.result.CopyFrom(await self._run_examples(servable, signature, request.input, CLASSIFY))
        return response

    async def regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """Run a regression signature on tf.Examples."""
        servable = self._servable(request)
        signature = _examples_signature(servable, request.model_spec)
        _check_regression(signature.definition)
        response = regression_pb2.RegressionResponse(
            model_spec=_spec(servable, request.model_spec.signature_name)
        )
        response.result.CopyFrom(await self._run_examples(servable, signature, request.input, REGRESS))
        return response

    async def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Run several classification and regression signatures of one model on the same tf.Examples."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        servable = self.find(spec)
        signatures = _task_signatures(servable, request.tasks)
        response = inference_pb2.MultiInferenceResponse()
        for task, signature in zip(request.tasks, signatures, strict=True):
            result = response.results.add()
            result.model_spec.CopyFrom(_spec(servable, task.model_spec.signature_name))
            answer = await self._run_examples(servable, signature, request.input, task.method_name)
            if task.method_name == CLASSIFY:
                result.classification_result.CopyFrom(answer)
            else:
                result.regression_result.CopyFrom(answer)
        return response

    async def _run_examples(
        self, servable: Servable, signature: Signature, given: input_pb2.Input, method: str
    ) -> Any:
        """Return a ClassificationResult or a RegressionResult."""
        examples = serialized_examples(given)
        alias = signature.inputs[0]
        expected = signature.definition.inputs[alias].dtype
        if expected != types_pb2.DT_STRING:
            raise invalid(f"Expects arg[0] to be {dtype_words(expected)} but string is provided")

        def finish(arrays: Arrays) -> Any:
            result = _classification if method == CLASSIFY else _regression
            return result(arrays, len(examples))

        return await self._scheduler.run(
            servable,
            signature,
            {alias: examples},
            rows=len(examples),
            size=given.ByteSize(),
            finish=finish,
        )

    # --- what is served ---------------------------------------------------------------------------

    def input_infos(
        self, spec: model_pb2.ModelSpec, signature: str
    ) -> Mapping[str, meta_graph_pb2.TensorInfo]:
        """The inputs that REST's predict decodes into."""
        name = signature or DEFAULT_SIGNATURE
        definition = self.find(spec).definitions.get(name)
        if definition is None:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        inputs: Mapping[str, meta_graph_pb2.TensorInfo] = definition.inputs
        return inputs

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signature definitions of a version."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_DEF:
                # The original forgets to fill its placeholder in.
                raise invalid(f"Metadata field %s is not supported{name}")
        servable = self.find(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in servable.definitions.items():
            signatures.signature_def[name].CopyFrom(definition)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_spec(servable, None))
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of each version of a model, or of one; a label is not looked at, as in the original."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for known in self._manager.status(spec.name, version):
            _add_status(response, known, self._error(known))
        return response

    def _error(self, version: Version) -> ServingError | None:
        """What a version's status tells of beside its state."""
        if version.servable is None or version.error is not None:
            return version.error
        words = self._trouble(version.servable)
        return None if words is None else ServingError(Code.UNAVAILABLE, words)

    def _trouble(self, servable: Servable) -> str | None:
        """Why a version cannot be asked at the moment, if so."""
        return self._scheduler.quarantine(servable) or servable.trouble

    def known_name(self, name: str) -> str:
        """The name, if it is one of a model here, else nothing: callers make no labels of metrics."""
        return name if name in self._manager.models else ""

    def serving_versions(self, name: str) -> list[int]:
        """The versions of a model that serve, highest first."""
        model = self._manager.models.get(name)
        known = model.versions.values() if model else ()
        return sorted((one.number for one in known if one.state is State.AVAILABLE), reverse=True)

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Whether a model, or that version of it, serves, and can be asked at the moment.

        Raises ServingError(NOT_FOUND) if it is unknown.
        """
        model = self._manager.models.get(name)
        if model is None or (version is not None and version not in model.versions):
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {which}")
        servable = model.latest() if version is None else model.at(version)
        return servable is not None and self._trouble(servable) is None

    def is_live(self) -> bool:
        """Whether no thread is lost to a call or a load that does not end; a restart alone gets it back."""
        return not (self._scheduler.is_stuck or self._manager.is_stuck)

    def all_settled(self) -> bool:
        """Whether each model serves, has nothing to serve, or has given up: none is being brought up.

        And whether it is known which models are asked for.
        """
        return self._is_told() and all(model.settled for model in self._manager.models.values())

    async def reload(self, config: model_server_config_pb2.ModelServerConfig) -> None:
        """Serve the models of a new configuration, and wait until those that are new serve."""
        if config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        await self._manager.configure(model_configs(config), wait=True)

    def _servable(self, request: Any) -> Servable:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return self.find(request.model_spec)

    def find(self, spec: model_pb2.ModelSpec) -> Servable:
        """The version that a ModelSpec names. Raises ServingError if it does not serve."""
        choice = spec.WhichOneof("version_choice")
        return self._manager.find(
            spec.name,
            version=spec.version.value if choice == "version" else None,
            label=spec.version_label if choice == "version_label" else None,
        )


def _spec(servable: Servable, signature: str | None) -> model_pb2.ModelSpec:
    """The effective ModelSpec; `signature` None leaves it out."""
    spec = model_pb2.ModelSpec(name=servable.name)
    spec.version.value = servable.version
    if signature is not None:
        spec.signature_name = signature or DEFAULT_SIGNATURE
    return spec


def _add_status(
    response: get_model_status_pb2.GetModelStatusResponse, known: Version, error: ServingError | None
) -> None:
    status = response.model_version_status.add(version=known.number, state=known.state.value)
    status.status.error_code = error.code.value if error else Code.OK.value
    status.status.error_message = error.message if error else ""


# --- predict --------------------------------------------------------------------------------------


def _checked_inputs(
    signature: Signature, request: predict_pb2.PredictRequest
) -> Mapping[str, tensor_pb2.TensorProto]:
    definition = signature.definition
    sent, declared = set(request.inputs), set(definition.inputs)
    if len(sent) > len(declared) or (len(sent) < len(declared) and not definition.defaults):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(declared)} "
            f"len({{{_join(sent)}}}) != len({{{_join(declared)}}}). "
            f"Sent extra: {{{_join(sent - declared)}}}. Missing but required: {{{_join(declared - sent)}}}."
        )
    inputs: dict[str, tensor_pb2.TensorProto] = {}
    for alias in sorted(declared):
        if alias in sent:
            inputs[alias] = request.inputs[alias]
        elif alias in definition.defaults:
            inputs[alias] = definition.defaults[alias]
        else:
            raise invalid(
                f"Signature input alias: {alias}(feed name: {definition.inputs[alias].name}) not found in "
                "request and no default value provided. Inputs expected to be in the request "
                f"{{{_join(sent)}}}, or default input alias set: {_join(definition.defaults)}"
            )
    if not sent <= declared:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {_join(sent & declared)}, "
            f"request input: {_join(sent)}"
        )
    check_types(signature, inputs)
    return inputs


def _checked_outputs(signature: Signature, output_filter: Iterable[str]) -> list[str]:
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.definition.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} "
                f"Outputs expected to be in the set {{{_join(signature.definition.outputs)}}}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or list(signature.outputs)


def _join(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _rows(inputs: Iterable[tensor_pb2.TensorProto]) -> int | None:
    """The first dimension, if all inputs agree on it and it is not zero."""
    sizes = {proto.tensor_shape.dim[0].size if proto.tensor_shape.dim else 0 for proto in inputs}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else None


# --- classify, regress, multi-inference -----------------------------------------------------------


def _examples_signature(servable: Servable, spec: model_pb2.ModelSpec) -> Signature:
    """Find a signature by name. As in the original, by default, its method name says nothing."""
    name = spec.signature_name or DEFAULT_SIGNATURE
    signature = servable.signatures.get(name)
    if signature is None:
        raise invalid(f"No signature was found with the name: {name}")
    return signature


def _check_classification(definition: meta_graph_pb2.SignatureDef) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) not in {1, 2}:
        raise invalid(f"Expected one or two output Tensors, found {len(definition.outputs)}")
    if "inputs" not in definition.inputs:
        raise failed_precondition(f"No classification inputs found in SignatureDef: {definition}")
    if not {"classes", "scores"} & set(definition.outputs):
        raise failed_precondition(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {definition}'
        )


def _check_regression(definition: meta_graph_pb2.SignatureDef) -> None:
    if len(definition.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(definition.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if "inputs" not in definition.inputs:
        raise failed_precondition(f"No regression inputs found in SignatureDef: {definition}")
    if "outputs" not in definition.outputs:
        raise failed_precondition(f"No regression outputs found in SignatureDef: {definition}")


def _task_signatures(servable: Servable, tasks: Iterable[inference_pb2.InferenceTask]) -> list[Signature]:
    """The signatures of a MultiInference, checked in the order and words of the original."""
    signatures: list[Signature] = []
    for task in tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != servable.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if any(name == other.name for other in signatures):
            raise invalid(f"Duplicate evaluation of signature: {name}")
        signature = servable.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name == CLASSIFY:
            _check_classification(signature.definition)
        elif task.method_name == REGRESS:
            _check_regression(signature.definition)
        else:
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        feeds = {other.definition.inputs["inputs"].name for other in [*signatures, signature]}
        if len(feeds) > 1:
            raise invalid("Input tensor must be the same for all Signatures.")
        signatures.append(signature)
    return signatures


def serialized_examples(given: input_pb2.Input) -> NDArray[Any]:
    """Serialized tf.Examples, `[N]` bytes; a shared context is put before each, which merges them."""
    kind = given.WhichOneof("kind")
    if kind == "example_list":
        rows = [example.SerializeToString() for example in given.example_list.examples]
    elif kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        rows = [context + example.SerializeToString() for example in given.example_list_with_context.examples]
    else:
        rows = []
    if not rows:
        raise invalid("Input is empty.")
    return np.array(rows, dtype=object)


def _classification(arrays: Arrays, examples: int) -> classification_pb2.ClassificationResult:
    classes, scores = arrays.get("classes"), arrays.get("scores")
    for name, array, kind in (
        ("classes", classes, types_pb2.DT_STRING),
        ("scores", scores, types_pb2.DT_FLOAT),
    ):
        if array is not None:
            _check_class_tensor(name, array, kind, examples)
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise invalid(
            "Tensors class and score should match in dim_size(1). "
            f"Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    result = classification_pb2.ClassificationResult()
    for row in range(examples):
        entry = result.classifications.add()
        width = (classes if classes is not None else scores).shape[1]  # type: ignore[union-attr] # one is there
        for column in range(width):
            one = entry.classes.add()
            if classes is not None:
                one.label = classes[row, column]
            if scores is not None:
                one.score = scores[row, column]
    return result


def _check_class_tensor(name: str, array: NDArray[Any], kind: int, examples: int) -> None:
    matrix = 2
    if array.ndim != matrix:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array.shape)}")
    right = array.dtype == object if kind == types_pb2.DT_STRING else array.dtype == np.float32
    if not right:
        raise invalid(f"Expected {name} Tensor of {types_pb2.DataType.Name(kind)}. Got: {_kind(array)}")
    if array.shape[0] != examples:
        raise invalid(f"Expected {name} output batch size of {examples}. Got: {array.shape[0]}")


def _regression(arrays: Arrays, examples: int) -> regression_pb2.RegressionResult:
    output = arrays["outputs"]
    matrix = 2
    if not (output.ndim == 1 or (output.ndim == matrix and output.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {_shape(output.shape)}"
        )
    if output.shape[0] != examples:
        raise invalid(f"Input batch size did not match output batch size: {examples} vs. {output.shape[0]}")
    if output.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_kind(output)}")
    result = regression_pb2.RegressionResult()
    for value in output.ravel().tolist():
        result.regressions.add(value=value)
    return result


def _shape(shape: Shape) -> str:
    return f"[{','.join(map(str, shape))}]"


def _kind(array: NDArray[Any]) -> str:
    return {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "object": "DT_STRING"}.get(
        array.dtype.name, f"DT_{array.dtype.name.upper()}"
    )
