"""The model server's pure parts: versions, configurations, settings, numbers, messages."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from caravan.graphs.limits import SessionLimits
from model_server import rest_answer, rest_request, tf_records
from model_server.config_file import with_own
from model_server.configs import model_configs
from model_server.dataflow import untouched
from model_server.errors import Code, ServingError, op_message
from model_server.parameters import BatchingParameters
from model_server.saved_model import load
from model_server.settings import SettingsError, read
from model_server.stubs import tensor_pb2
from model_server.tensors import to_array, to_proto
from model_server.versions import All, Latest, Specific, index_versions, may_unload, parse_version


@pytest.mark.parametrize(
    ("name", "version"),
    [("1", 1), ("007", 7), ("0", 0), ("1a", None), ("", None), ("-1", None), ("٣", None), (str(2**63), None)],
)
def test_only_names_that_are_integers_are_versions(name: str, version: int | None) -> None:
    assert parse_version(name) == version


def test_of_two_names_for_one_version_the_last_in_order_wins() -> None:
    assert index_versions(["7", "007", "x", "2"]) == {7: "7", 2: "2"}


def test_policies_choose_among_what_is_there() -> None:
    assert Latest().choose([1, 3, 2]) == {3}
    assert Latest(2).choose([1, 3, 2]) == {3, 2}
    assert All().choose([1, 3]) == {1, 3}
    assert Specific(frozenset({1, 9})).choose([1, 3]) == {1}


def test_an_unwanted_version_goes_only_once_a_wanted_one_serves() -> None:
    assert not may_unload(1, frozenset({2}), [1])
    assert may_unload(1, frozenset({2}), [1, 2])
    assert not may_unload(2, frozenset({2}), [1, 2])


def test_every_code_has_its_http_status() -> None:
    expected = {
        3: 400,
        9: 400,
        11: 400,
        16: 401,
        7: 403,
        5: 404,
        10: 409,
        6: 409,
        8: 429,
        12: 501,
        14: 503,
        4: 504,
    }
    for code in set(Code) - {Code.OK}:
        assert ServingError(code, "").http_status == expected.get(code, 500)
        assert ServingError(code, "").grpc_code.name == code.name


def test_an_ops_message_loses_what_the_runtime_wrapped_around_it() -> None:
    wrapped = (
        "{{function_node __wrapped__X}} {{function_node __f_1}} Expects arg[0] to be float [Op:X] name: "
    )
    assert op_message(wrapped) == "Expects arg[0] to be float"


def test_numbers_are_printed_with_as_many_digits_as_they_need() -> None:
    values = [0.1, 1 / 3, 123456.0, 1234567.0, 1e7, -0.0, 3.0, 1e-5]
    floats = {"y": to_proto(tf.constant(values, tf.float32).numpy(), tf.float32.as_datatype_enum)}
    text = rest_answer.predictions(floats, rest_request.Form.ROW).decode()
    printed = text[text.index("[") + 1 : text.index("]")].split(",")
    assert printed == ["0.1", "0.333333343", "123456.0", "1234567.0", "1e+07", "-0.0", "3.0", "1e-05"]
    doubles = {"y": to_proto(tf.constant([0.1, 1 / 3], tf.float64).numpy(), tf.float64.as_datatype_enum)}
    assert "0.1,0.33333333333333331" in rest_answer.predictions(doubles, rest_request.Form.ROW).decode()


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint32",
        "uint64",
        "bool",
        "float16",
        "bfloat16",
        "string",
    ],
)
def test_tensors_of_every_type_survive_both_ways(dtype: str) -> None:
    source = ["a", ""] if dtype == "string" else [[1, 0], [0, 1]]
    values = tf.constant(source) if dtype == "string" else tf.cast(tf.constant(source), dtype)
    proto = to_proto(values.numpy(), values.dtype.as_datatype_enum)
    assert to_array("x", proto).tolist() == values.numpy().tolist()


def shaped(dtype: str, *sizes: int, **values: Any) -> Any:
    proto = tensor_pb2.TensorProto(dtype=f"DT_{dtype}", **values)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        shaped("FLOAT", 3, float_val=[1.0, 2.0]),
        shaped("FLOAT", 2, float_val=[1.0, 2.0, 3.0]),
        shaped("FLOAT", 2, 2),
        shaped("FLOAT", 0, 3, float_val=[1.0]),
        shaped("FLOAT", float_val=[1.0]),
        shaped("FLOAT", 2, tensor_content=np.array([1.5, -2.0], np.float32).tobytes()),
        shaped("FLOAT", 2, tensor_content=b"abcde"),
        shaped("INT8", 3, int_val=[1, 300, -129]),
        shaped("UINT16", 2, int_val=[65537, -1]),
        shaped("UINT64", 1, uint64_val=[2**64 - 1]),
        shaped("BOOL", 3, bool_val=[True, False]),
        shaped("BOOL", 2, tensor_content=b"\x01\x00"),
        shaped("HALF", 2, half_val=[0x3C00]),
        shaped("BFLOAT16", 1, half_val=[0x3F80]),
        shaped("COMPLEX64", 2, scomplex_val=[1.0, 2.0, 3.0]),
        shaped("QINT8", 2, int_val=[5, -5]),
        shaped("INT4", 2, int_val=[5, -5]),
        shaped("FLOAT8_E5M2", 2, float8_val=b"\x3c\x40"),
        shaped("STRING", 3, string_val=[b"a", b"\xff"]),
        shaped("STRING", 2),
        shaped("STRING", 2, tensor_content=b"\x01\x02abc"),
        shaped("STRING", 2, tensor_content=b"\x01\x02ab"),
        shaped("STRING", 2, tensor_content=b"\x80\x01"),
        shaped("STRING", 1, tensor_content=b"\x80\x01" + b"x" * 128),
    ],
    ids=str,
)
def test_tensors_are_read_as_tensorflow_itself_reads_them(proto: Any) -> None:
    try:
        parsed = tf.raw_ops.ParseTensor(serialized=proto.SerializeToString(), out_type=proto.dtype)
    except tf.errors.OpError:
        with pytest.raises(ServingError, match="tensor parsing error: x"):
            to_array("x", proto)
        return
    expected, read = np.asarray(parsed.numpy(), parsed.dtype.as_numpy_dtype), to_array("x", proto)
    assert (read.dtype, read.shape, read.tolist()) == (expected.dtype, expected.shape, expected.tolist())


def test_records_are_those_that_tensorflow_wrote_and_damage_is_told(tmp_path: Path) -> None:
    file, records = tmp_path / "records", [b"one", b"", b"three" * 100]
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)
    assert list(tf_records.read(file)) == records
    whole = file.read_bytes()
    for damaged, words in (
        (whole[:-1], "truncated record at 35"),
        (whole[:-5], "truncated record at 35"),
        (whole[:40], "truncated record at 35"),
        (whole[:12] + b"x" + whole[13:], "corrupted record at 0"),
        (b"x" + whole[1:], "corrupted record at 0"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(tf_records.DamagedError, match=words):
            list(tf_records.read(file))


def config(text: str) -> model_server_config_pb2.ModelServerConfig:
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def test_a_configuration_lists_models_with_policies_and_labels() -> None:
    models = model_configs(
        config(
            """model_config_list {
            config { name: "a" base_path: "/a" model_platform: "tensorflow"
                     version_labels { key: "stable" value: 3 } }
            config { name: "b" base_path: "s3://b/m" model_platform: "tensorflow"
                     model_version_policy { all {} } }
            config { name: "c" base_path: "/c" model_type: TENSORFLOW
                     model_version_policy { specific { versions: 2 versions: 4 } } } }"""
        )
    )
    assert models["a"].labels == {"stable": 3}
    policies = (models["a"].policy, models["b"].policy, models["c"].policy)
    assert policies == (Latest(1), All(), Specific(frozenset({2, 4})))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ('config { name: "a" base_path: "/a" }', "Illegal setting neither"),
        ('config { name: "a" base_path: "a" model_platform: "tensorflow" }', "absolute path or URI"),
        ('config { name: "a" base_path: "gs://a" model_platform: "tensorflow" }', "File system scheme 'gs'"),
        ('config { name: "a" base_path: "s3:///a" model_platform: "tensorflow" }', "absolute path or URI"),
        ('config { name: "a" base_path: "/a\\0b" model_platform: "tensorflow" }', "absolute path or URI"),
        ('config { name: "a" base_path: "/a" model_platform: "x" }', "requests unsupported platform x"),
        (
            'config { name: "a" base_path: "/a" model_platform: "tensorflow" } ' * 2,
            "Illegal to list model a multiple times in config list",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(entries: str, words: str) -> None:
    with pytest.raises(ServingError) as caught:
        model_configs(config(f"model_config_list {{ {entries} }}"))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert words in caught.value.message


def test_the_environment_of_the_official_image_is_read() -> None:
    settings = read(
        [],
        {
            "MODEL_NAME": "tea",
            "MODEL_BASE_PATH": "s3://production/models",
            "S3_ENDPOINT": "127.0.0.1:9100",
            "S3_USE_HTTPS": "0",
            "S3_VERIFY_SSL": "0",
            "AWS_ACCESS_KEY_ID": "who",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_REGION": "eu-west-1",
        },
    )
    model = settings.config.model_config_list.config[0]
    assert (model.name, model.base_path) == ("tea", "s3://production/models/tea")
    assert (settings.s3.endpoint, settings.s3.region) == ("http://127.0.0.1:9100", "eu-west-1")
    assert not settings.s3.verify_ssl
    assert "hush" not in repr(settings)


def test_a_model_named_by_itself_stands_beside_those_of_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text('model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" } }')
    flag = f"--model_config_file={file}"

    def served(*flags: str, **environment: str) -> dict[str, str]:
        settings = read([flag, *flags], environment)
        listed = with_own(settings.own, settings.config).model_config_list.config
        return {model.name: model.base_path for model in listed}

    assert served() == {"a": "/a"}
    assert served(MODEL_BASE_PATH="/m") == {"a": "/a"}
    assert served(MODEL_NAME="tea", MODEL_BASE_PATH="/m") == {"a": "/a", "tea": "/m/tea"}
    assert served("--model_name=a", "--model_base_path=/other") == {"a": "/a"}
    in_s3 = read(["--model_config_file=s3://production/models/models.config"], {"MODEL_NAME": "tea"})
    assert with_own(in_s3.own, in_s3.config).model_config_list.config[0].base_path == "/models/tea"


def test_flags_go_before_the_environment() -> None:
    settings = read(
        [
            "--model_name=b",
            "--model_base_path=/m/b",
            "--port=1",
            "--rest_api_port=2",
            "--enable_batching=false",
        ],
        {"MODEL_NAME": "a"},
    )
    model = settings.config.model_config_list.config[0]
    assert (model.name, model.base_path, settings.port, settings.rest_api_port) == ("b", "/m/b", 1, 2)
    assert settings.batching is None


def test_parameters_are_read_from_the_originals_text_files(tmp_path: Path) -> None:
    batching = tmp_path / "batching"
    batching.write_text(
        "max_batch_size { value: 4 }\nbatch_timeout_micros { value: 10 }\n"
        "allowed_batch_sizes: 2, allowed_batch_sizes: 4"
    )
    monitoring = tmp_path / "monitoring"
    monitoring.write_text('prometheus_config { enable: true, path: "/metrics" }')
    settings = read([f"--batching_parameters_file={batching}", f"--monitoring_config_file={monitoring}"], {})
    assert settings.batching is not None
    assert (settings.batching.max_batch_size, settings.batching.allowed_batch_sizes) == (4, (2, 4))
    assert settings.prometheus_path == "/metrics"


def test_all_faults_of_the_settings_are_named_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("nonsense")
    flags = [
        f"--model_config_file={bad}",
        "--port=5",
        "--rest_api_port=5",
        f"--batching_parameters_file={bad}",
    ]
    with pytest.raises(SettingsError) as caught:
        read(flags, {"S3_USE_HTTPS": "perhaps"})
    text = str(caught.value)
    assert text.count("Invalid protobuf file") == 2
    assert "--rest_api_port cannot be same as --port" in text
    assert "S3_USE_HTTPS" in text


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("port", "99999"),
        ("rest_api_port", "-1"),
        ("tensorflow_session_parallelism", "1000000000"),
        ("file_system_poll_wait_seconds", "0"),
        ("max_num_load_retries", "-1"),
        ("drain_seconds", "nan"),
        ("max_call_seconds", "inf"),
    ],
)
def test_a_flag_that_is_no_such_number_is_refused_by_one_line(name: str, number: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read([f"--{name}={number}"], {})
    assert re.fullmatch(rf"--{name} \S+: it is a number from .*", str(caught.value))


def test_a_load_may_be_tried_as_often_as_tensorflow_serving_takes() -> None:
    assert read(["--max_num_load_retries=2147483647"], {}).max_load_retries == 2**31 - 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_size": 0},
        {"batch_timeout_micros": -1},
        {"max_batch_size": 4, "allowed_batch_sizes": (4, 2)},
        {"max_batch_size": 4, "allowed_batch_sizes": (2,)},
    ],
)
def test_contradictory_batching_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|increasing"):
        BatchingParameters(**wrong)


def test_only_outputs_that_no_input_reaches_are_handed_out_whole(saved_models: Path, graphs: Any) -> None:
    text = load("text", 1, saved_models / "text" / "1", SessionLimits(), graphs).signatures
    assert (text["classify"].batchable, text["classify"].whole) == (True, frozenset({"classes"}))
    assert not text["serving_default"].batchable
    pair = load("pair", 1, saved_models / "pair" / "1", SessionLimits(), graphs).signatures
    assert pair["serving_default"].batchable
    assert not pair["total"].batchable


def test_the_flow_of_a_request_is_followed_through_a_graph() -> None:
    graph = tf.Graph()
    with graph.as_default():
        fed = tf.compat.v1.placeholder(tf.float32, [None], name="fed")
        tf.add(fed, 1.0, name="reached")
        tf.constant([1.0], name="fixed")
        with tf.control_dependencies([fed]):
            tf.constant([1.0], name="after")
    names = ["reached:0", "fixed:0", "after:0"]
    assert untouched(graph.as_graph_def(), ["fed:0"], names) == {"fixed:0"}
