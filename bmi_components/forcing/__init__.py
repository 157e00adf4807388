"""Weather for the models: readers, sample weather and potential evapotranspiration."""
