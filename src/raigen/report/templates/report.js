{% include "explorer/address.js" %}
{% include "download.js" %}
{% include "explorer/images.js" %}
{% include "explorer/orders.js" %}
{% include "explorer/map.js" %}
{% include "explorer/gallery.js" %}
{% include "explorer/lightbox.js" %}
{% include "explorer/table.js" %}
{% include "explorer/heatmaps.js" %}
{% include "explorer/notes.js" %}
{% include "explorer/strengths.js" %}

const explored = explorer ? explore() : null;
if (explored) lightboxOf(explored.items);
noteOn(explorer && explorer.key);
readAddress();
