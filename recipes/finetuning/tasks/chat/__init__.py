"""Conversations: an assistant that answers what it is told and asked."""
