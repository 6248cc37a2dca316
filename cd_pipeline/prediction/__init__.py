"""Prediction for people: photos of any size and form in, masks, boxes and shares out."""
