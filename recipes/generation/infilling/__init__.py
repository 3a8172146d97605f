"""Middles of texts, written from what stands before and behind them."""
