"""A FastAPI application that validates a path and a query parameter and answers with a nested model."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    """One line of an order."""

    sku: str
    count: int
    cents: int


class Order(BaseModel):
    """An order, as a shop's API tells it."""

    number: int
    currency: str
    items: list[Item]
    cents: int


@app.get("/orders/{number}")
async def read_order(number: int, currency: str = "EUR") -> Order:
    """The order, made up on the spot: no database is measured."""
    items = [Item(sku=f"A-{line}", count=line, cents=999) for line in range(1, 4)]
    return Order(number=number, currency=currency, items=items, cents=sum(item.count * item.cents for item in items))
