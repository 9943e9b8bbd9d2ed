"""The paper's golden feature: its learning, and the relevance it defines."""
