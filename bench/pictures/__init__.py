"""Pictures of result files: one function a picture, all readable on light and on dark pages."""
