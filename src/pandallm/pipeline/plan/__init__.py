"""What a recipe will cost, before it runs: steps, tokens, memory, hours, price. No torch, apart from `probe`."""
