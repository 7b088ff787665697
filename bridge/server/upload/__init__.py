"""The way of one upload: handler, form, receiver, file store (validate, transform, store), commit, response text."""
