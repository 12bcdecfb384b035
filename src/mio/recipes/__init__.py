"""Recipes by name: functions that return a `Recipe`."""
