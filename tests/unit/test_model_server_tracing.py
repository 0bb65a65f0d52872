"""The model server's place in a version's trace: it loads what a manifest's metadata tell of."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from model_server import sources
from model_server.settings import SettingsError, read

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_loading_a_version_from_s3_goes_on_with_the_trace_of_its_manifest(
    saved_models: Path, start_server: Any, monkeypatch: pytest.MonkeyPatch, spans: InMemorySpanExporter
) -> None:
    store = MemoryStore()
    monkeypatch.setattr(sources, "open_store", lambda *_: store)
    base = saved_models / "half"
    attributes = {1: None, 2: {"traceparent": PARENT}}
    for version, facts in attributes.items():
        obstore.put(store, f"models/half/{version}/manifest.json", b"{}", attributes=facts)
        for file in (base / "1").rglob("*"):
            if file.is_file():
                key = f"models/half/{version}/{file.relative_to(base / '1').as_posix()}"
                obstore.put(store, key, file.read_bytes())
    with ExitStack() as stack:
        flags = ("--model_name=half", "--model_base_path=s3://production/models/half")
        server = start_server(stack, *flags, wait={"half": 2})
        assert server.states("half")[2] == "AVAILABLE"
    (load,) = spans.get_finished_spans()
    assert (load.name, f"{load.context.trace_id:032x}") == ("load", PARENT[3:35])
    assert dict(load.attributes or {}) == {"model": "half", "version": 2}
    assert load.start_time is not None
    assert load.end_time is not None
    assert load.start_time < load.end_time


def test_its_settings_for_traces_are_read_with_the_others_and_faults_are_named() -> None:
    name = ["--model_name=half"]
    told = read(name, {"TRACES": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    assert (told.traces.traces, read(name, {}).traces.traces) == ("otlp", "off")
    with pytest.raises(SettingsError, match=r"TRACES: Input should be 'off', 'file' or 'otlp'"):
        read(name, {"TRACES": "on"})
    with pytest.raises(SettingsError, match=r"TRACES: .*set OTEL_EXPORTER_OTLP_ENDPOINT"):
        read(name, {"TRACES": "otlp"})
