"""Write SavedModels as older TensorFlows did, with TensorFlow 2.15 and its Keras 2:

    python3.11 -m venv old && old/bin/pip install tensorflow-cpu==2.15.1
    old/bin/python make_saved_models.py

Each is a ZIP beside this file, small enough for the repository, so that no test needs an old TensorFlow.
Their answers are known: see `test_saved_models.py`.
"""

import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
CLASSES = ("cup", "plate", "spoon")
v1 = tf.compat.v1


def striped() -> Any:
    """Pictures [6, 8, 8, 1] of the three classes, twice: each has its own two bright rows."""
    images = np.zeros((6, 8, 8, 1), np.float32)
    for number in range(6):
        images[number, 2 * (number % 3) : 2 * (number % 3) + 2] = 1
    return images


def keras2_adam(folder: Path) -> None:
    """A convolutional net that was trained with Adam: the optimizer's slots are in its object graph."""
    tf.keras.utils.set_random_seed(1)
    net = tf.keras.Sequential(
        [
            tf.keras.layers.Input((8, 8, 1)),
            tf.keras.layers.Conv2D(2, 3, activation="relu"),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(3, activation="softmax"),
        ]
    )
    net.compile(tf.keras.optimizers.legacy.Adam(0.01), "sparse_categorical_crossentropy")
    net.fit(striped(), np.arange(6) % 3, epochs=60, verbose=0)
    net.save(folder, save_format="tf")


def builder(folder: Path) -> None:
    """What TensorFlow 1's SavedModelBuilder wrote: variables, and a table that an asset fills."""
    names = folder.parent / "names.txt"
    names.write_text("\n".join(CLASSES) + "\n")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 8, 8, 1], "x")
        weights = v1.get_variable("weights", initializer=striped()[:3].reshape(3, 64).T, use_resource=False)
        scores = tf.nn.softmax(tf.reshape(x, [-1, 64]) @ weights, name="scores")
        path = tf.constant(str(names))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, path)
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                path,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            "other",
        )
        labels = table.lookup(tf.argmax(scores, axis=1))
        # Of a graph for training too, which no signature reaches.
        step = v1.train.get_or_create_global_step()
        v1.train.AdamOptimizer().minimize(tf.reduce_mean(scores), step)
        v1.io.write_file(str(folder.parent / "log"), v1.as_string(step), name="write_log")
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        out = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def({"x": x}, {"scores": scores, "labels": labels})
        out.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature},
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
        )
        out.save()


def several_graphs(folder: Path) -> None:
    """Three MetaGraphs; only the one tagged `serve` alone, which comes last, answers 3 x."""
    out = v1.saved_model.Builder(str(folder))
    for place, (tags, factor) in enumerate(((["train"], 1.0), (["serve", "gpu"], 2.0), (["serve"], 3.0))):
        anywhere = v1.ConfigProto(allow_soft_placement=True)
        with tf.Graph().as_default(), v1.Session(config=anywhere) as session:
            x = v1.placeholder(tf.float32, [None, 2], "x")
            with tf.device("/device:GPU:0"):
                y = x * v1.get_variable("one", initializer=1.0) * factor
            session.run(v1.global_variables_initializer())
            signature = {"serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": y})}
            if place == 0:
                out.add_meta_graph_and_variables(session, tags, signature)
            else:
                out.add_meta_graph(tags, signature)
    out.save()


def constant(folder: Path) -> None:
    """A frozen graph: no variable, no saver, no folder `variables`; its input has a default in the graph."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder_with_default(tf.zeros([1, 2]), [None, 2], "x")
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": x * 2 + 1})
    shutil.rmtree(folder / "variables", ignore_errors=True)


def estimator(folder: Path) -> None:
    """A canned Estimator: it parses tf.Examples, and classifies them."""
    columns = [
        tf.feature_column.numeric_column("size", shape=(2,)),
        tf.feature_column.indicator_column(
            tf.feature_column.categorical_column_with_vocabulary_list("colour", ["red", "green", "blue"])
        ),
    ]
    data = {
        "size": np.array([[0, 0], [1, 1], [5, 5]] * 4, np.float32),
        "colour": np.array(["red", "green", "blue"] * 4),
    }
    config = tf.estimator.RunConfig(tf_random_seed=1)
    with tempfile.TemporaryDirectory() as work:
        made = tf.estimator.DNNClassifier(
            [4], columns, model_dir=work, n_classes=3, label_vocabulary=list(CLASSES), config=config
        )
        labels = np.array(list(CLASSES) * 4)
        made.train(lambda: tf.data.Dataset.from_tensor_slices((data, labels)).repeat(50).batch(12), steps=50)
        spec = tf.feature_column.make_parse_example_spec(columns)
        receiver = tf.estimator.export.build_parsing_serving_input_receiver_fn(spec)
        shutil.move(made.export_saved_model(work + "/export", receiver).decode(), folder)


def estimator_image(folder: Path) -> None:
    """An Estimator with a model function of its own, which takes pictures."""

    def model(features: Any, labels: Any, mode: str) -> Any:
        scores = v1.layers.dense(v1.layers.flatten(features["image"]), 3)
        loss = None
        train = None
        if labels is not None:
            loss = v1.losses.sparse_softmax_cross_entropy(labels, scores)
            train = v1.train.AdamOptimizer(0.1).minimize(loss, v1.train.get_global_step())
        answers = {
            "probabilities": tf.nn.softmax(scores),
            "classes": tf.gather(tf.constant(CLASSES), tf.argmax(scores, axis=1)),
        }
        exported = {"serving_default": tf.estimator.export.PredictOutput(answers)}
        return tf.estimator.EstimatorSpec(mode, answers, loss, train, export_outputs=exported)

    with tempfile.TemporaryDirectory() as work:
        made = tf.estimator.Estimator(model, work, tf.estimator.RunConfig(tf_random_seed=1))
        rows = ({"image": striped()}, np.arange(6) % 3)
        made.train(lambda: tf.data.Dataset.from_tensor_slices(rows).repeat().batch(6), steps=50)

        def receiver() -> Any:
            given = {"image": v1.placeholder(tf.float32, [None, 8, 8, 1], "image")}
            return tf.estimator.export.ServingInputReceiver(given, given)

        shutil.move(made.export_saved_model(work + "/export", receiver).decode(), folder)


def text(folder: Path) -> None:
    """Keras 2 with a text layer: words are looked up in a table whose words come from an asset."""
    words = folder.parent / "words.txt"
    words.write_text("tea\ncup\nmilk\n")
    net = tf.keras.Sequential(
        [
            tf.keras.layers.Input((1,), dtype=tf.string),
            tf.keras.layers.TextVectorization(max_tokens=16, output_sequence_length=3, vocabulary=str(words)),
            tf.keras.layers.Embedding(16, 2),
            tf.keras.layers.SimpleRNN(3),
            tf.keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    net.save(folder, save_format="tf")


MAKERS: tuple[Callable[[Path], Any], ...] = (
    keras2_adam,
    builder,
    several_graphs,
    constant,
    estimator,
    estimator_image,
    text,
)


def main() -> None:
    """Write all, or those named."""
    for maker in MAKERS:
        if sys.argv[1:] and maker.__name__ not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, maker.__name__)
            maker(folder)
            target = HERE / f"{maker.__name__}.zip"
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(folder.rglob("*")):
                    if path.is_file() and path.name != "keras_metadata.pb":
                        name = zipfile.ZipInfo(str(path.relative_to(folder.parent)))
                        name.compress_type = zipfile.ZIP_DEFLATED
                        archive.writestr(name, path.read_bytes())
            print(target.name, target.stat().st_size)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
