"""From requests to what a machine holds: streams of events, live sets, places. Knows bytes, and no operator."""
