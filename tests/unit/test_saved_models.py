"""SavedModels as TensorFlow 1's builder, an Estimator and Keras 2 write them, served; and what is not run."""

import base64
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_service_pb2_grpc

from caravan.graphs import meta_graph
from caravan.graphs.limits import SessionLimits
from caravan.graphs.operations import COMPUTING, READERS
from caravan.graphs.session import GraphSession

ZIPS = Path(__file__).parents[1] / "support" / "saved_models"
MODELS = ("builder", "constant", "estimator", "estimator_image", "keras2_adam", "several_graphs", "text")


def unzip(name: str, folder: Path) -> Path:
    """Unpack a model as version 1 of its name."""
    with zipfile.ZipFile(ZIPS / f"{name}.zip") as archive:
        archive.extractall(folder / "unpacked")
    (folder / name).mkdir(parents=True)
    (folder / "unpacked" / name).rename(folder / name / "1")
    return folder / name / "1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, start_server: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("old")
    for name in MODELS:
        unzip(name, folder)
    entries = (
        f'config {{ name: "{name}" base_path: "{folder / name}" model_platform: "tensorflow" }}'
        for name in MODELS
    )
    config = folder / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    with ExitStack() as stack:
        yield start_server(stack, f"--model_config_file={config}", wait=dict.fromkeys(MODELS, 1))


def predictions(server: Any, path: str, instances: Any) -> Any:
    answer = httpx.post(f"{server.url}/v1/models/{path}:predict", json={"instances": instances}, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def striped(number: int) -> np.ndarray[Any, Any]:
    """The picture that the Keras net was shown for one of its classes."""
    image = np.zeros((8, 8, 1), np.float32)
    image[2 * number : 2 * number + 2] = 1
    return image


def example(size: list[float], colour: bytes) -> tf.train.Example:
    made = tf.train.Example()
    made.features.feature["size"].float_list.value.extend(size)
    made.features.feature["colour"].bytes_list.value.append(colour)
    return made


@pytest.mark.parametrize(
    ("name", "label", "scores"),
    [("builder", "labels", "scores"), ("estimator_image", "classes", "probabilities")],
)
def test_models_of_tensorflow_1_answer_by_names_and_probabilities(
    server: Any, name: str, label: str, scores: str
) -> None:
    found = predictions(server, name, [striped(number).tolist() for number in range(3)])
    assert [each[label] for each in found] == ["cup", "plate", "spoon"]
    assert [int(np.argmax(each[scores])) for each in found] == [0, 1, 2]


def test_keras_2_with_adam_answers_as_it_was_trained(server: Any) -> None:
    found = predictions(server, "keras2_adam", [striped(number).tolist() for number in range(3)])
    assert np.argmax(found, axis=1).tolist() == [0, 1, 2]
    assert np.max(found, axis=1).min() > 0.99


def test_keras_2_with_a_layer_of_words_answers(server: Any) -> None:
    (known,), (unknown,) = predictions(server, "text", [["tea cup"], ["of no such word"]])
    assert 0 < known < 1
    assert known != unknown


def test_of_several_meta_graphs_the_one_tagged_serve_answers(server: Any) -> None:
    assert predictions(server, "several_graphs", [[1.0, 2.0]]) == [[3.0, 6.0]]


def test_a_frozen_graph_without_variables_answers(server: Any) -> None:
    assert predictions(server, "constant", [[1.0, 2.0]]) == [[3.0, 5.0]]


def test_an_estimator_answers_over_rest_as_one_that_classifies_and_as_one_that_predicts(server: Any) -> None:
    answer = httpx.post(
        f"{server.url}/v1/models/estimator:classify",
        json={"examples": [{"size": [0.0, 0.0], "colour": "red"}, {"size": [5.0, 5.0], "colour": "blue"}]},
        timeout=10,
    )
    best = [max(result, key=lambda pair: pair[1])[0] for result in answer.json()["results"]]
    assert best == ["cup", "spoon"]
    serialized = base64.b64encode(example([5, 5], b"blue").SerializeToString()).decode()
    body = {"signature_name": "predict", "instances": [{"b64": serialized}]}
    answer = httpx.post(f"{server.url}/v1/models/estimator:predict", json=body, timeout=10)
    assert answer.json()["predictions"][0]["classes"] == ["spoon"]


def test_they_answer_over_grpc(server: Any) -> None:
    with grpc.insecure_channel(server.target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "keras2_adam"
        request.inputs["input_1"].CopyFrom(tf.make_tensor_proto(striped(1)[None]))
        scores = tf.make_ndarray(stub.Predict(request, timeout=10).outputs["dense"])
        assert scores.argmax() == 1
        asked = classification_pb2.ClassificationRequest()
        asked.model_spec.name = "estimator"
        asked.input.example_list.examples.append(example([0, 0], b"red"))
        (found,) = stub.Classify(asked, timeout=10).result.classifications
        assert max(found.classes, key=lambda one: one.score).label == "cup"


def test_a_new_version_of_another_make_takes_over(serve_models: Any, tmp_path: Path, save_half: Any) -> None:
    unzip("several_graphs", tmp_path)
    base = tmp_path / "several_graphs"
    running = serve_models(
        "--model_name=m", f"--model_base_path={base}", "--max_num_load_retries=0", wait={"m": 1}
    )
    save_half(tmp_path / "staged", 1.0)
    (tmp_path / "staged").rename(base / "2")
    running.wait_for("m", 2)
    assert predictions(running, "m", [4.0])[0]["y"] == 3.0
    unzip("constant", tmp_path)
    (tmp_path / "constant" / "1").rename(base / "3")
    running.wait_for("m", 3)
    assert predictions(running, "m", [[4.0, 0.0]]) == [[9.0, 1.0]]


# --- what is run, and what is not -----------------------------------------------------------------


def write(folder: Path, graph: Callable[[], tuple[Any, Any]]) -> Path:
    """Save what `graph` builds, an input and an output, as TensorFlow 1's builder does."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x, y = graph()
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    return folder


def edited(folder: Path, edit: Callable[[Any], None]) -> Path:
    """Change a model's MetaGraph."""
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    edit(saved.meta_graphs[-1])
    file.write_bytes(saved.SerializeToString())
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(tf.errors.OpError) as caught:
        GraphSession.load(folder, SessionLimits())
    return str(caught.value.message)


def test_a_graph_that_reads_a_file_is_refused_by_the_operations_name(tmp_path: Path) -> None:
    def reads() -> Any:
        x = tf.compat.v1.placeholder(tf.string, [], "x")
        return x, tf.io.read_file(x)

    assert "ReadFile" in refusal(write(tmp_path / "m", reads))


def test_so_is_one_that_does_so_in_a_function_that_a_branch_calls(tmp_path: Path) -> None:
    target = str(tmp_path / "written")

    @tf.function(input_signature=[tf.TensorSpec([], tf.bool, name="x")])  # type: ignore[untyped-decorator]
    def branch(x: Any) -> Any:
        def write_out() -> Any:
            tf.io.write_file(target, "text")
            return 1.0

        return {"y": tf.cond(x, write_out, lambda: 0.0)}

    module = tf.Module()
    module.branch = branch
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=branch)
    assert "WriteFile" in refusal(tmp_path / "m")
    assert not Path(target).exists()


def test_a_graph_that_prints_is_served_unless_it_prints_into_a_file(tmp_path: Path) -> None:
    def prints(**stream: str) -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        with tf.control_dependencies([tf.print("asked", **stream)]):
            return x, x + 1

    session = GraphSession.load(write(tmp_path / "log", prints), SessionLimits())
    answer = session.signatures["serving_default"].call({"x": np.array([1.0], np.float32)})
    assert answer["y"].tolist() == [2.0]
    session.close()
    target = tmp_path / "printed"
    assert "PrintV2" in refusal(write(tmp_path / "file", lambda: prints(output_stream=f"file://{target}")))
    assert not target.exists()


def test_an_operation_that_tensorflow_does_not_have_is_said_to_be_another_librarys(tmp_path: Path) -> None:
    def edit(meta: Any) -> None:
        for node in meta.graph_def.node:
            if node.op == "Mul":
                node.op = "TheirMul"

    folder = edited(unzip("several_graphs", tmp_path), edit)
    assert "TheirMul, which TensorFlow itself does not have" in refusal(folder)


def test_a_program_of_jax_is_refused_with_another_way_to_export_it(tmp_path: Path) -> None:
    def edit(meta: Any) -> None:
        for node in meta.graph_def.node:
            if node.op == "Mul":
                node.op = "XlaCallModule"

    reason = refusal(edited(unzip("several_graphs", tmp_path), edit))
    assert "XLA as JAX exports it" in reason
    assert reason.endswith("export the model as ONNX")


def test_devices_of_other_machines_say_nothing_in_functions_either(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def far(x: Any) -> Any:
        with tf.device("/job:worker/task:3/device:GPU:1"):
            return {"y": x + 1}

    module = tf.Module()
    module.far = far
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=far)
    session = GraphSession.load(tmp_path / "m", SessionLimits())
    answer = session.signatures["serving_default"].call({"x": np.array([1.0], np.float32)})
    assert answer["y"].tolist() == [2.0]
    session.close()


def test_a_signature_with_a_sparse_output_says_so_and_the_others_answer(tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        info = v1.saved_model.build_tensor_info
        signatures = {
            name: v1.saved_model.build_signature_def({"x": info(x)}, {"y": info(y)}, "")
            for name, y in (("sparse", tf.sparse.from_dense(x)), ("dense", x * 2))
        }
        builder = v1.saved_model.Builder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    loaded = GraphSession.load(tmp_path / "m", SessionLimits())
    row = np.array([[0.0, 3.0]], np.float32)
    assert loaded.signatures["dense"].call({"x": row})["y"].tolist() == [[0.0, 6.0]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="y is sparse or ragged"):
        loaded.signatures["sparse"].call({"x": row})
    loaded.close()


def test_what_no_signature_reaches_is_neither_run_nor_looked_at(tmp_path: Path) -> None:
    def graph() -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        tf.compat.v1.print(tf.io.read_file("training.csv"))
        return x, x + 1

    session = GraphSession.load(write(tmp_path / "m", graph), SessionLimits())
    answer = session.signatures["serving_default"].call({"x": np.array([1.0], np.float32)})
    assert answer["y"].tolist() == [2.0]
    assert "ReadFile" not in {node.op for node in session.graph.node}
    session.close()


def test_an_input_takes_the_place_of_the_pipeline_that_fed_it_in_training(tmp_path: Path) -> None:
    def graph() -> Any:
        rows = tf.data.Dataset.from_tensor_slices((tf.zeros([4]), tf.ones([4])))
        _first, second = tf.compat.v1.data.make_one_shot_iterator(rows).get_next()
        return second, second * 2 + tf.stop_gradient(second) * 0

    session = GraphSession.load(write(tmp_path / "m", graph), SessionLimits())
    assert session.signatures["serving_default"].call({"x": np.array(3, np.float32)})["y"] == 6.0
    session.close()


def test_a_table_is_filled_from_the_models_own_assets_alone(tmp_path: Path) -> None:
    folder = unzip("builder", tmp_path)
    elsewhere = tmp_path / "elsewhere.txt"
    shutil.copy(folder / "assets" / "names.txt", elsewhere)

    def by_constant(meta: Any) -> None:
        del meta.collection_def["saved_model_assets"]

    def by_asset(meta: Any) -> None:
        for packed in meta.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            asset.filename = f"../../../{elsewhere.name}"
            packed.Pack(asset)

    assert "not in the model's folder" in refusal(
        edited(shutil.copytree(folder, tmp_path / "a" / "b"), by_asset)
    )
    assert "of a file that is not its own" in refusal(
        edited(shutil.copytree(folder, tmp_path / "c"), by_constant)
    )


def test_variables_are_restored_from_the_models_own_checkpoint_alone(tmp_path: Path) -> None:
    folder = unzip("several_graphs", tmp_path)
    other = str(folder / "variables" / "variables")

    def edit(meta: Any) -> None:
        node = tf.compat.v1.NodeDef(name="other", op="Const")
        node.attr["dtype"].type = tf.string.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(other))
        meta.graph_def.node.append(node)
        for one in meta.graph_def.node:
            if one.op == "RestoreV2":
                one.input[0] = "other"

    assert "RestoreV2 of a file that is not its own" in refusal(edited(folder, edit))


def test_variables_that_are_missing_are_a_reason(tmp_path: Path) -> None:
    folder = unzip("several_graphs", tmp_path)
    shutil.rmtree(folder / "variables")
    assert "variables" in refusal(folder)


def test_a_graph_tagged_for_another_use_is_not_served(tmp_path: Path) -> None:
    def edit(meta: Any) -> None:
        meta.meta_info_def.tags.append("tpu")

    folder = edited(unzip("several_graphs", tmp_path), edit)
    assert "Could not find meta graph def matching supplied tags: { serve }" in refusal(folder)


def test_a_call_ends_when_its_time_is_over_and_the_next_one_is_answered(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="n")])  # type: ignore[untyped-decorator]
    def count(n: Any) -> Any:
        return {"y": tf.while_loop(lambda i: i < n, lambda i: [i + 1], [0])[0]}

    module = tf.Module()
    module.count = count
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=count)
    session = GraphSession.load(tmp_path / "m", SessionLimits(run_seconds=0.2))
    signature = session.signatures["serving_default"]
    with pytest.raises(tf.errors.DeadlineExceededError):
        signature.call({"n": np.array(2_000_000, np.int32)})
    assert signature.call({"n": np.array(3, np.int32)})["y"] == 3
    session.close()
    with pytest.raises(tf.errors.CancelledError):
        signature.call({"n": np.array(3, np.int32)})


def test_every_operation_on_the_list_is_one_of_tensorflows_and_no_reader_is_on_it() -> None:
    registered = set(dir(tf.raw_ops))
    assert registered >= COMPUTING
    assert not COMPUTING & READERS.keys()
    talks = {
        "ReadFile",
        "WriteFile",
        "MatchingFiles",
        "PyFunc",
        "EagerPyFunc",
        "SaveV2",
        "PrintV2",
        "DebugIdentityV2",
    }
    files = {
        "ImmutableConst",
        "FixedUnigramCandidateSampler",
        "TextLineDataset",
        "DecodeProtoV2",
        "RecordInput",
    }
    peers = {
        "RpcCall",
        "Send",
        "Recv",
        "DataServiceDatasetV2",
        "RemoteCall",
        "CollectiveReduceV2",
        "XlaCallModule",
    }
    assert not COMPUTING & (talks | files | peers)


def test_a_path_is_followed_through_identities_and_calls_and_nothing_else() -> None:
    graph = graph_pb2.GraphDef()
    for name, op, source in (
        ("i", "Identity", "asset"),
        ("j", "Identity", "i"),
        ("u", "StringUpper", "asset"),
    ):
        graph.node.add(name=name, op=op, input=[source])
    nodes = {node.name: node for node in graph.node}
    graph.node.add(name="t", op="HashTableV2")
    for source, fine in (("asset", True), ("j:0", True), ("u", False), ("asset:1", False)):
        reader = graph_pb2.GraphDef()
        reader.node.add(name="r", op="InitializeTableFromTextFileV2", input=["t", source])
        every = {**nodes, "r": reader.node[0], "t": graph.node[-1]}
        if fine:
            meta_graph._check(every, every, {}, own=["asset:0"])
        else:
            with pytest.raises(tf.errors.InvalidArgumentError):
                meta_graph._check(every, every, {}, own=["asset:0"])
