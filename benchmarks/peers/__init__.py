"""Contenders that run in environments of their own, each told by `pipe.serve_passes` what to do."""
