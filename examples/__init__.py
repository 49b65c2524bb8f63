"""Four tasks that do real work: mail, images, exports and webhooks. The app is `examples.tasks`."""
