"""One generator of events per verb: train, adapt, segment, evaluate, replay, pipeline."""
