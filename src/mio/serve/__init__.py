"""An OpenAI-compatible server: HTTP in, jobs for one model, answers of interleaved media out."""
