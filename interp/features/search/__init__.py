"""Search by concept: from labelled texts to the latents that express it, scored on texts they were not chosen on."""
