class FactsMiddleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, s, r, d):
        await self.app(s, r, d)
