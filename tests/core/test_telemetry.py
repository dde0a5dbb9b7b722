"""The engine's metrics reach OpenTelemetry under their own names."""

from __future__ import annotations

import gc
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from qwen3_rag import Embedder, EngineMetrics, Reranker
from qwen3_rag.telemetry import observe


def values(reader: InMemoryMetricReader) -> dict[str, Any]:
    data: Any = reader.get_metrics_data()
    if data is None:
        return {}
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    return {metric.name: point for metric in scope.metrics for point in metric.data.data_points}


def test_every_metric_is_observed_until_the_component_is_gone(embedding_checkpoint: Path) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    embedder = Embedder(str(embedding_checkpoint), dtype="float32", device="cpu")
    observe(embedder, provider.get_meter("test"))
    embedder.embed_documents(["a", "b"])
    seen = values(reader)
    assert {name: point.value for name, point in seen.items()} == {
        f"qwen3_rag.{field.name}": pytest.approx(getattr(embedder.metrics, field.name))
        for field in fields(EngineMetrics)
    }
    assert dict(seen["qwen3_rag.prompts"].attributes) == {
        "model": str(embedding_checkpoint),
        "component": "Embedder",
    }
    del embedder
    gc.collect()
    assert values(reader) == {}
    provider.shutdown()


def test_components_observed_on_one_meter_are_all_reported(
    embedding_checkpoint: Path, reranking_checkpoint: Path
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    meter = provider.get_meter("two")
    with (
        Embedder(str(embedding_checkpoint), device="cpu") as embedder,
        Reranker(str(reranking_checkpoint), device="cpu") as reranker,
    ):
        observe(embedder, meter)
        observe(reranker, meter)
        embedder.embed_documents(["a", "b"])
        reranker.score("q", ["d"])
        data: Any = reader.get_metrics_data()
        (scope,) = data.resource_metrics[0].scope_metrics
        (prompts,) = [metric for metric in scope.metrics if metric.name == "qwen3_rag.prompts"]
        seen = {point.attributes["component"]: point.value for point in prompts.data.data_points}
    assert seen == {"Embedder": 2, "Reranker": 1}
    provider.shutdown()
