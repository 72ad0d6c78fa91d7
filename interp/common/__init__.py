"""What every folder of `interp` may use: statistics, texts, digests, precision. It imports nothing else of `interp`."""
