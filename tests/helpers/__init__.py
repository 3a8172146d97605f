"""Small pieces that several test files share."""
