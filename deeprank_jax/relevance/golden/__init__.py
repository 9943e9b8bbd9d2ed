"""The paper's golden feature: its training, and the relevance it defines."""
