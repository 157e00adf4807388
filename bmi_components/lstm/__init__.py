"""Recurrent networks: cells, and the streamflow LSTM family."""
