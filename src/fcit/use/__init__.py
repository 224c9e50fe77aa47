"""What a finished run is good for: export to PEFT, serve, chat."""
