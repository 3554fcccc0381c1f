"""Fill-in-the-middle as pure functions: how each model family is prompted (`families`, `prompt`), which part of the
text around the cursor fits a token budget (`context`), how a prompt that a client already templated is read back
(`recognise`), and what of the engine's text reaches the client (`output`). The worker, which holds the tokenizer,
trims and renders; the daemon recognises and filters. User text stays text throughout: only a `Marker` ever becomes a
control token.
"""
