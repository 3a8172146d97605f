"""The scores of an embedding model: how well it searches, and how well it tells how alike texts are."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet, RetrievalSet, SimilaritySet
from weft.recipes.finetuning.embeddings.sides import Side

QUERIES_AT_ONCE = 128
DEPTH = 10  # of a ranking
SPEARMAN, NDCG = "spearmanr", "ndcg_at_10"
OF_PAIRS, OF_LABELS = (NDCG, "mrr_at_10", "recall_at_1", "recall_at_10"), (NDCG, "mrr_at_10", "accuracy_at_1")
OF_SCORES = (SPEARMAN, "pearsonr")


@dataclass
class Judged:
    """How a side did on a set.

    Attributes:
        metrics: by name.
        given: of pairs the similarities; of queries the places of the texts that come first, the best first.
    """

    metrics: dict[str, float]
    given: Any = field(repr=False)


def headline_of(evaluation: EvaluationSet) -> tuple[str, ...]:
    """The names of the metrics of a set, the one that chooses weights first."""
    if isinstance(evaluation, SimilaritySet):
        return OF_SCORES
    return OF_LABELS if evaluation.by_label else OF_PAIRS


def judge(side: Side, evaluation: EvaluationSet) -> Judged:
    """Score a side on a set."""
    return _correlate(side, evaluation) if isinstance(evaluation, SimilaritySet) else _search(side, evaluation)


def _correlate(side: Side, evaluation: SimilaritySet) -> Judged:
    from scipy import stats  # it takes long to import

    given = side.similarities(evaluation.firsts, evaluation.seconds)
    metrics = {
        name: float(getattr(stats, name)(given, evaluation.scores).statistic) if np.ptp(given) > 0 else 0.0
        for name in OF_SCORES
    }
    return Judged(metrics, given)


def _search(side: Side, evaluation: RetrievalSet) -> Judged:
    """The metrics of sentence-transformers' own evaluator, from the first ten of each ranking; of texts with equal
    scores those that do not belong to the query come first, so that a side that tells nothing apart finds nothing."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    search, places, queries = side.index(evaluation.documents), [], evaluation.queries
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        for number, scores in enumerate(search(queries[start : start + QUERIES_AT_ONCE]), start):
            belongs = np.isin(np.arange(len(scores)), [*evaluation.relevant[number]])
            places.append(np.lexsort((belongs, -scores))[:DEPTH].tolist())
    names = [f"{place:09d}" for place in range(len(evaluation.documents))]
    evaluator = InformationRetrievalEvaluator(
        {str(number): query for number, query in enumerate(queries)},
        dict(zip(names, evaluation.documents)),
        {str(number): {names[place] for place in found} for number, found in enumerate(evaluation.relevant)},
        **{"mrr_at_k": [DEPTH], "ndcg_at_k": [DEPTH], "accuracy_at_k": [1], "precision_recall_at_k": [1, DEPTH]},
        map_at_k=[DEPTH],
    )
    # ranks for scores: it would put equal ones in an order of its own
    ranked = [[{"corpus_id": names[p], "score": -rank} for rank, p in enumerate(row)] for row in places]
    found = evaluator.compute_metrics(ranked)
    metrics = {
        f"{name.partition('@')[0]}_at_{k}": float(value)
        for name, values in found.items()
        for k, value in values.items()
    }
    return Judged({name: metrics[name] for name in headline_of(evaluation)}, places)
