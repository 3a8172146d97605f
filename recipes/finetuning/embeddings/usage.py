"""Python that uses a published embedding model or reranker, for its card."""

from weft.recipes.finetuning.embeddings.arguments import EmbeddingArguments

EMBEDDING = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}", trust_remote_code=True)
texts = ["The river rises in spring.", "A loaf of bread costs two coins."]
vectors = model.encode_document(texts)
query = model.encode_query("When is there much water in the river?")
print(model.similarity(query, vectors))"""

RERANKER = """from sentence_transformers import CrossEncoder

model = CrossEncoder("{name}", trust_remote_code=True)
texts = ["The river rises in spring.", "A loaf of bread costs two coins."]
for found in model.rank("When is there much water in the river?", texts):
    print(found["score"], texts[found["corpus_id"]])"""


def usage_of(name: str, embedding: EmbeddingArguments) -> str:
    """The program for a model of this name."""
    return (RERANKER if embedding.reranker else EMBEDDING).format(name=name)
