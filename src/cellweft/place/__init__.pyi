from cellweft.place.placement import Placement as Placement
from cellweft.place.placer import Placer as Placer
