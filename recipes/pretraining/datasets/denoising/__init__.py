"""Text to text: a piece of a document becomes a source, which is spoilt or cut short, and a target to write for it."""
