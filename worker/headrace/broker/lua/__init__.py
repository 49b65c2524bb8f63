"""One Lua file per transition; what they share is in lib/."""
