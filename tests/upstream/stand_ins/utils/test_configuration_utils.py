"""Stands in for transformers' tests of configurations, of which the common config test uses one table."""

# What every config accepts, with values that differ from the defaults.
config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 3,
    "architectures": ["WeftForCausalLM"],
    "id2label": {0: "only"},
    "label2id": {"only": "0"},
    "problem_type": "regression",
}
