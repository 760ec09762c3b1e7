"""From the map and back: scenes of any size in tiles, objects in the scene's coordinate reference system.

What reads or writes map files needs the extra ``geo`` (rasterio, shapely, pyogrio); importing these modules does not.
"""
