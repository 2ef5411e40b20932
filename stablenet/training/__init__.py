"""Training: one loop on lightning-fabric, and a frozen recipe for each network."""
