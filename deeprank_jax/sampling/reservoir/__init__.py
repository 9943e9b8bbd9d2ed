"""The paper's importance sampling from reservoir buffers."""
