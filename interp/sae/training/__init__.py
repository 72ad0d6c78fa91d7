"""The trainer: one run over batches of activations, for one autoencoder or several, with checkpoints.

1. `train` and `train_many` (`train.py`) put their arguments into a `Plan` (`plan.py`) and each autoencoder, with the
   columns that it reads and its rate, into a `Member` (`member.py`).
2. `run` (`run.py`) fills a `ShuffleBuffer` (`data/shuffle_buffer.py`) from the source, whose forward passes the
   processes share (`data/distributed.py`), and goes on from a checkpoint where there is one (`checkpoint.py`).
3. A first sample sets what is read off the data: `Objective.initialise` (`architectures/objective.py`), in
   the architecture's own file.
4. For every batch, each `Learner` (`learner.py`) restarts dead latents where that is due (`resample.py`), takes the
   gradients of its `Objective`, clips them, lets `Adam` step (`adam.py`) at the rate that the `Schedule` says
   (`schedule.py`), and restores the constraints on the weights.
5. Its `History` (`history.py`) follows the loss and which latents are silent; callbacks are given each point of the
   curve (`callbacks.py`, `writers.py`).
6. `run` settles what only followed the weights, and the final ones are measured on the batches that come next, which
   gives the `TrainReport`.
"""
