"""Reports are judged beside the event loop, in processes of their own: a hostile file hurts nobody but itself."""
