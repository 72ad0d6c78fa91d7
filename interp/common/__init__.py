"""What every folder of `interp` may use: statistics, texts, digests, precision. Nothing here imports the rest of `interp`."""
