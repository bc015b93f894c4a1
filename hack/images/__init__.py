"""Builder of the project's images: with Docker where an engine answers, else with buildah."""
