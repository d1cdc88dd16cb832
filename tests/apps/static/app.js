document.documentElement.dataset.version = "@VERSION@";
