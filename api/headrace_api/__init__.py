"""The HTTP door: routes that parse, call one method, and answer."""
